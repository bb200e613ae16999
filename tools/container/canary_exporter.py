"""Serve what the canary sees as Prometheus metrics: every scrape sends one picture through the whole ensemble.

Triton's own metrics look healthy while a dead Python process leaves every request unanswered.
The picture is sent by healthcheck.py in a process of its own, so that a hanging client cannot hang the exporter.
Standard library only: it runs inside the server's image.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import http.client
import http.server
import signal
import subprocess
import sys
import threading
from pathlib import Path

HEALTHCHECK = Path(__file__).with_name("healthcheck.py")
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def canary_succeeds(grpc_url: str, timeout: float) -> bool:
    """Whether the canary picture got its proper answer within `timeout` seconds."""
    command = [sys.executable, str(HEALTHCHECK), "--url", grpc_url]
    try:
        return subprocess.run(command, capture_output=True, timeout=timeout, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def is_ready(http_url: str, timeout: float) -> bool:
    """Whether Triton says that it and its models are ready."""
    connection = http.client.HTTPConnection(http_url, timeout=timeout)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def exposition(grpc_url: str, ready: bool, success: bool) -> str:
    """The two gauges in Prometheus's text format."""
    return (
        "# HELP nudenet_ready Whether the server says that all models are ready\n"
        "# TYPE nudenet_ready gauge\n"
        f'nudenet_ready{{target="{grpc_url}"}} {int(ready)}\n'
        "# HELP nudenet_canary_success Whether the canary picture got its proper answer\n"
        "# TYPE nudenet_canary_success gauge\n"
        f'nudenet_canary_success{{target="{grpc_url}"}} {int(success)}\n'
    )


def make_handler(grpc_url: str, http_url: str, timeout: float) -> type[http.server.BaseHTTPRequestHandler]:
    """A handler for GET /metrics; one canary at a time, however many ask."""
    one_at_a_time = threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/metrics":
                self.send_error(404)
                return
            # Side by side: one after the other, a hanging server would outlast Prometheus's scrape timeout.
            with one_at_a_time, concurrent.futures.ThreadPoolExecutor(1) as pool:
                ready = pool.submit(is_ready, http_url, timeout)
                success = canary_succeeds(grpc_url, timeout)
                text = exposition(grpc_url, ready.result(), success)
            body = text.encode()
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Prometheus's own scrape metrics say as much."""

    return Handler


def main() -> None:
    """Export nudenet_ready and nudenet_canary_success for one server until stopped."""
    parser = argparse.ArgumentParser(description=main.__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--grpc-url", default="127.0.0.1:8001", help="HOST:PORT of the server's gRPC")
    parser.add_argument("--http-url", default="127.0.0.1:8000", help="HOST:PORT of the server's HTTP")
    parser.add_argument("--listen", default="127.0.0.1", help="address to serve /metrics on")
    parser.add_argument("--port", type=int, default=9402, help="port to serve /metrics on")
    parser.add_argument(
        "--timeout", type=float, default=8.0, help="seconds the canary may take; below Prometheus's scrape timeout"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # as process 1 of a container nothing else ends it
    handler = make_handler(options.grpc_url, options.http_url, options.timeout)
    with http.server.ThreadingHTTPServer((options.listen, options.port), handler) as exporter:
        exporter.serve_forever()


if __name__ == "__main__":
    main()
