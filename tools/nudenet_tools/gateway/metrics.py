"""What the gateway counts, served on a port of its own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, start_http_server

from nudenet_tools.gateway.keys import KeyFile


class Metrics:
    """Counters of one process; with `keys`, whether that file is in use, too."""

    def __init__(self, keys: KeyFile | None = None) -> None:
        self._registry = CollectorRegistry()
        name = "nudenet_gateway_"
        self.requests = Counter(
            f"{name}requests_total", "Requests answered", ["path", "status"], registry=self._registry
        )
        self.seconds = Histogram(f"{name}request_seconds", "Time of a request", ["path"], registry=self._registry)
        self.pictures = Counter(f"{name}pictures_total", "Pictures answered", ["result"], registry=self._registry)
        self.frames = Counter(f"{name}frames_total", "Frames sent to the servers", registry=self._registry)
        self.converted = Counter(
            f"{name}converted_total", "Pictures of other formats than JPEG", registry=self._registry
        )
        self.in_flight = Gauge(f"{name}in_flight_requests", "Requests at work", registry=self._registry)
        if keys is not None:
            key_file_ok = Gauge(f"{name}key_file_ok", "1: the key file as it is now is in use", registry=self._registry)
            key_file_ok.set_function(keys.is_current)

    def exposition(self) -> str:
        """As Prometheus reads it."""
        return generate_latest(self._registry).decode()

    def serve(self, address: str, port: int) -> None:
        """Answer ``/metrics`` in a thread, until the process ends. Raises OSError: the port is taken."""
        start_http_server(port, address, self._registry)
