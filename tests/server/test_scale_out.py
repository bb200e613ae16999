"""Three servers behind nginx, and with the client's own round robin: even split, one killed under load, and back."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tritonclient.grpc as grpcclient

from nudenet_client import Client
from nudenet_tools.server import repository, system_packages
from nudenet_tools.server.process import Options, Ports, Server

CONF = Path(__file__).parents[2] / "deploy" / "nginx" / "nginx.conf"
NGINX = system_packages.find("nginx")
TUNING = repository.Tuning(instances={"nudenet_preprocess": 1}, parameters={"nudenet_trt": {"threads": "1"}})


def free_ports(count: int) -> list[int]:
    """Different ones: asked for one after the other, the kernel may give the same twice."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in sockets]


class Fleet:
    """Three servers, each on ports that it keeps when it is started again."""

    def __init__(self) -> None:
        ports = iter(free_ports(9))
        self.servers = [Server(Options(Ports(*itertools.islice(ports, 3)), tuning=TUNING)) for _ in range(3)]
        # The threads must outlive the servers: a server is told to stop when the thread that started it ends.
        self._pool = ThreadPoolExecutor()
        list(self._pool.map(Server.start, self.servers))

    def served(self) -> list[int]:
        """Requests that each server has answered since its start; 0 for a dead one."""
        return [self._count(server) if server.process is not None else 0 for server in self.servers]

    @staticmethod
    def _count(server: Server) -> int:
        with grpcclient.InferenceServerClient(server.grpc_url) as client:
            statistics = client.get_inference_statistics("nudenet")
        return int(statistics.model_stats[0].inference_stats.success.count)

    def kill(self, index: int) -> None:
        process = self.servers[index].process
        assert process is not None
        os.killpg(process.pid, signal.SIGKILL)
        self.servers[index].stop()

    def stop(self) -> None:
        list(self._pool.map(Server.stop, self.servers))
        self._pool.shutdown()


@pytest.fixture(scope="module")
def fleet(onnx_path: Path) -> Iterator[Fleet]:
    running = Fleet()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def nginx(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an nginx that runs the shipped configuration with this test's ports."""
    assert NGINX is not None, "nginx is missing: run tools/setup.sh --test-tools"
    folder = tmp_path_factory.mktemp("nginx")
    (port,) = free_ports(1)
    text = CONF.read_text().replace("listen 8001 ", f"listen 127.0.0.1:{port} ").replace("auto;", "1;")
    for number, server in enumerate(fleet.servers, 1):
        text = text.replace(f"triton-{number}:8001", server.grpc_url)
    text = re.sub(r"fail_timeout=\d+s", "fail_timeout=1s", text)
    paths = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    conf = folder / "nginx.conf"
    conf.write_text(text.replace("http {", f"http {{ {paths}", 1))
    command = [NGINX, "-c", str(conf), "-p", str(folder), "-e", str(folder / "error.log")]
    process = subprocess.Popen([*command, "-g", f"daemon off; pid {folder}/nginx.pid;"])
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(params=[pytest.param("nginx", marks=pytest.mark.needs("nginx")), "client"])
def client(request: pytest.FixtureRequest, fleet: Fleet) -> Iterator[Client]:
    """A client that reaches all three servers one way or the other."""
    if request.param == "nginx":
        address, round_robin = request.getfixturevalue("nginx"), False
    else:
        address, round_robin = "ipv4:" + ",".join(server.grpc_url for server in fleet.servers), True
    with Client(address, round_robin=round_robin, retries=6) as found:
        yield found


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"


def answers(client: Client, picture: bytes, count: int, at_third: Callable[[], None] = lambda: None) -> int:
    """Send `count` requests, four at a time; calls `at_third` in the midst of them. Returns the proper answers."""
    proper = 0
    for i, found in enumerate(client.detect_many([picture] * count, batch_size=1)):
        proper += [detection.label for detection in found] == ["FACE_FEMALE"]
        if i == count // 3:
            at_third()
    return proper


def split(fleet: Fleet, client: Client, picture: bytes, count: int) -> list[int]:
    """How many of `count` requests each server answered."""
    before = fleet.served()
    assert answers(client, picture, count) == count
    return [after - earlier for after, earlier in zip(fleet.served(), before, strict=True)]


def test_even_split_then_one_dies_under_load_and_comes_back(fleet: Fleet, client: Client, astronaut: bytes):
    def everybody_takes_part() -> bool:
        return all(share > 0 for share in split(fleet, client, astronaut, 6))

    until(everybody_takes_part)  # all connections stand
    shares = split(fleet, client, astronaut, 90)
    assert sum(shares) == 90
    assert max(shares) - min(shares) <= 9, shares

    alive_before = fleet.served()
    assert answers(client, astronaut, 120, at_third=lambda: fleet.kill(1)) == 120
    assert fleet.served()[1] == 0
    for index in (0, 2):  # the other two took over its share
        assert fleet.served()[index] - alive_before[index] >= 45

    fleet.servers[1].start()
    until(everybody_takes_part)
    shares = split(fleet, client, astronaut, 90)
    assert max(shares) - min(shares) <= 9, shares
