#!/usr/bin/env python3
"""One canary picture through the whole ensemble: the only honest sign of life of this server.

    python tools/container/healthcheck.py --url 127.0.0.1:8001 --processes

Exit status 0: the face in canary.jpg was found, or the server is alive but too busy for one more request.
1: anything else, with the reason on stderr. A dead Python process leaves /v2/health/ready at 200 (Triton before 26.01),
so container and Kubernetes probes run this. Where a model has several processes, the picture may meet a good one:
--processes looks at each. Needs tritonclient[grpc] and nothing else.
"""

from __future__ import annotations

import argparse
import http.client
import json
import struct
import sys
import time
from pathlib import Path

import numpy as np
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException

CANARY = Path(__file__).with_name("canary.jpg")
LIVE = 1  # priority: before bulk
# What Triton says when it sheds load: full queue, or waited too long in it.
BUSY = ("Exceeds maximum queue size", "Request timeout expired")

# A probe asks the server itself. gRPC would send even 127.0.0.1 through the environment's http_proxy.
_NO_PROXY = [("grpc.enable_http_proxy", 0)]

_SHARED_MEMORY = Path("/dev/shm")
GONE, _STOPPED = ("", "Z", "X"), ("T", "t")  # states in /proc
_NOTE = struct.Struct("=qq")  # as nudenet_steps.serving.heartbeat writes it


class CanaryError(RuntimeError):
    """The server did not answer the canary picture properly; `final` means that asking again cannot help."""

    def __init__(self, message: str, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


class Canary:
    """Asks one server about the canary picture; a context manager that keeps one connection.

    Args:
        url: host and port of gRPC.
        tls: arguments of tritonclient for TLS: ``ssl``, ``root_certificates``, ``private_key``, ``certificate_chain``.
    """

    def __init__(self, url: str, **tls: object) -> None:
        self._client = grpc.InferenceServerClient(url, channel_args=_NO_PROXY, **tls)
        self._tensor = grpc.InferInput("image", [1, 1], "BYTES")
        self._tensor.set_data_from_numpy(np.array([[CANARY.read_bytes()]], np.object_))

    def __enter__(self) -> Canary:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def ask(self, timeout: float) -> float:
        """Send the picture and check the answer.

        Returns:
            Seconds it took.

        Raises:
            CanaryError: no answer within `timeout` seconds, an error, or no face found.
        """
        begin = time.monotonic()
        outputs = [grpc.InferRequestedOutput("num_detections")]
        try:
            answer = self._client.infer(
                "nudenet", [self._tensor], outputs=outputs, priority=LIVE, client_timeout=timeout
            )
        except InferenceServerException as error:
            status, message = error.status() or "", error.message()
            if not any(sign in message for sign in BUSY):
                raise CanaryError(
                    f"{status.removeprefix('StatusCode.')}: {message}", "not healthy" in message
                ) from error
        else:
            if answer.as_numpy("num_detections")[0, 0] < 1:
                raise CanaryError("answered, but did not find the face in the canary picture")
        return time.monotonic() - begin


class HttpCanary:
    """The same over HTTP, with the standard library."""

    def __init__(self, url: str) -> None:
        self._url = url
        picture = CANARY.read_bytes()
        body = struct.pack("<I", len(picture)) + picture
        tensor = {"name": "image", "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": len(body)}}
        request = {"inputs": [tensor], "outputs": [{"name": "num_detections"}], "parameters": {"priority": LIVE}}
        header = json.dumps(request).encode()
        self._headers = {"Inference-Header-Content-Length": str(len(header))}
        self._body = header + body

    def __enter__(self) -> HttpCanary:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing stays open between pictures."""

    def ask(self, timeout: float) -> float:
        """As `Canary.ask`."""
        begin = time.monotonic()
        connection = http.client.HTTPConnection(self._url, timeout=timeout)
        try:
            connection.request("POST", "/v2/models/nudenet/infer", self._body, self._headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise CanaryError(f"no answer: {error!r}") from error
        finally:
            connection.close()
        message = answer.get("error", "")
        if response.status == 200:
            if answer["outputs"][0]["data"][0] < 1:
                raise CanaryError("answered, but did not find the face in the canary picture")
        elif not any(sign in message for sign in BUSY):
            raise CanaryError(f"{response.status}: {message}", "not healthy" in message)
        return time.monotonic() - begin


def process_state(pid: int | str) -> tuple[str, str]:
    """State letter and start time of a process as /proc has them; both empty if it is gone. Process ids come again."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", ""
    return fields[0], fields[19]


def is_running(pid: int | str, started: str) -> bool:
    """Whether a process that began at `started` (see `process_state`) is there and no zombie."""
    state, begun = process_state(pid)
    return begun == started and state not in GONE


def ailing(server: int | str = "*") -> dict[int, str]:
    """The Python processes that have died, are stopped or hang.

    Args:
        server: process id of a tritonserver; by default of all on this machine.

    Returns:
        process id -> what is wrong with it.
    """
    found = {}
    for path in _SHARED_MEMORY.glob(f"nudenet_heartbeat_{server}_*_*"):
        _, _, of, started, pid = path.name.split("_")
        try:
            note = path.read_bytes()
        except OSError:  # just removed, or somebody else's
            continue
        if not is_running(of, started) or len(note) < _NOTE.size:  # that server has ended, or just begins
            continue
        since, longest = _NOTE.unpack_from(note)
        working = time.monotonic_ns() - since if since else 0
        state, _ = process_state(pid)
        who = f"{note[_NOTE.size :].decode()} (process {pid})"
        if state in GONE:
            found[int(pid)] = f"{who} died"
        elif state in _STOPPED:
            found[int(pid)] = f"{who} is stopped"
        elif working > longest:
            found[int(pid)] = f"{who} hangs: {working / 1e9:.0f} s at work on one batch"
    return found


def main() -> int:
    """Ask once. Exit status 0: alive; 1: not."""
    parser = argparse.ArgumentParser(description="Send one picture through the ensemble; exit status 0 if it answers.")
    parser.add_argument("--url", default="127.0.0.1:8001", help="host and port of gRPC (default %(default)s)")
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds (default %(default)s)")
    parser.add_argument(
        "--processes", action="store_true", help="look at the Python processes, too, of servers that run here"
    )
    parser.add_argument("--tls-ca", type=Path, help="encrypt, trusting this PEM file")
    parser.add_argument("--tls-cert", type=Path, help="the client's certificate, where the server asks for one")
    parser.add_argument("--tls-key", type=Path, help="and its key")
    options = parser.parse_args()
    if (options.tls_cert is None) != (options.tls_key is None):  # gRPC ends the process over it
        parser.error("--tls-cert and --tls-key belong together; name a file that holds both twice")
    tls = {
        "ssl": options.tls_ca is not None,
        "root_certificates": options.tls_ca and str(options.tls_ca),
        "private_key": options.tls_key and str(options.tls_key),
        "certificate_chain": options.tls_cert and str(options.tls_cert),
    }
    try:
        with Canary(options.url, **tls) as canary:
            seconds = canary.ask(options.timeout)
        if options.processes and (found := ailing()):
            raise CanaryError("answers, but " + "; ".join(found.values()))
    except (CanaryError, OSError) as error:
        print(f"healthcheck: {options.url}: {error}", file=sys.stderr)
        return 1
    print(f"healthcheck: {options.url} answered in {1000 * seconds:.0f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
