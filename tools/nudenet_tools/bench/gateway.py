"""What the HTTP gateway adds: the same picture over gRPC and through the gateway, in alternating turns of one run.

PYTHONPATH=tools python -m nudenet_tools.bench.gateway
"""

from __future__ import annotations

import http.client
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import psutil

from nudenet_client import Client, Parameters
from nudenet_tools import ROOT
from nudenet_tools.server.process import Options, Ports, Server

PICTURE = ROOT / "tests" / "data" / "astronaut_720p.jpg"
ROUNDS, REQUESTS = 12, 50  # requests of each kind in a round
START_SECONDS = 60.0


def main() -> None:
    """Print the median time of a request and the CPU time of the gateway and of the client, a line a kind."""
    data = PICTURE.read_bytes()
    with Server(Options(ports=Ports.free())) as server, Client(server.grpc_url) as client:
        ports = Ports.free()
        process = subprocess.Popen(
            [
                *(sys.executable, str(ROOT / "tools" / "gateway.py"), f"--url={server.grpc_url}"),
                *(f"--port={ports.http}", f"--metrics-port={ports.metrics}", "--rate=1000000", "--burst=1000000"),
            ],
            stderr=subprocess.DEVNULL,
        )
        try:
            connection = _connect(ports.http)

            def post(path: str) -> None:
                connection.request("POST", path, data, {"Content-Type": "image/jpeg"})
                response = connection.getresponse()
                body = response.read()
                if response.status != 200:
                    raise RuntimeError(f"{path} answers {response.status}: {body[:200]!r}")

            judged = Parameters(policy="standard")
            kinds: dict[str, Callable[[], object]] = {
                "gRPC": lambda: client.detect(data),
                "gRPC, with a policy": lambda: client.detect(data, judged),
                "gateway, /v1/detect": lambda: post("/v1/detect"),
                "gateway, /v1/moderate": lambda: post("/v1/moderate"),
            }
            measure(kinds, psutil.Process(process.pid))
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)


def measure(kinds: dict[str, Callable[[], object]], gateway: psutil.Process) -> None:
    """Run all kinds in turns, and print."""
    times: dict[str, list[float]] = {name: [] for name in kinds}
    spent = dict.fromkeys(kinds, 0.0)
    for ask in kinds.values():  # warm
        ask()
    for _ in range(ROUNDS):
        for name, ask in kinds.items():
            before = _cpu(gateway)
            for _ in range(REQUESTS):
                begin = time.perf_counter()
                ask()
                times[name].append(time.perf_counter() - begin)
            spent[name] += _cpu(gateway) - before
    for name in kinds:
        each = spent[name] / (ROUNDS * REQUESTS)
        median = statistics.median(times[name]) * 1e3
        print(f"{name:24} p50 {median:6.2f} ms   gateway {each * 1e3:5.2f} core-ms a picture")
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _connect(port: int) -> http.client.HTTPConnection:
    connection, end = http.client.HTTPConnection("127.0.0.1", port, timeout=30), time.monotonic() + START_SECONDS
    while True:
        try:
            connection.request("GET", "/health/ready")
            if connection.getresponse().read():
                return connection
        except OSError:
            connection.close()
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


if __name__ == "__main__":
    main()
