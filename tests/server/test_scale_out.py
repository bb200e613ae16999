"""Three servers behind nginx, and with the client's own round robin: even split, one killed under load, and back."""

from __future__ import annotations

import contextlib
import functools
import http.client
import itertools
import json
import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from container import limits, repository
from helpers.ports import free_ports
from helpers.tls_files import Authority
from nudenet_client import Client, Tls
from nudenet_tools.server import system_packages
from nudenet_tools.server.process import Options, Ports, Server

CONF = Path(__file__).parents[2] / "deploy" / "nginx" / "nginx.conf"
NGINX = system_packages.find("nginx")
TUNING = repository.Tuning(instances={"nudenet_preprocess": 1}, parameters={"nudenet_trt": {"threads": "1"}})


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


class Proxy:
    """An nginx that runs the shipped configuration; `address`, `tls` and `KEY` are for its clients."""

    KEY = "a-key-of-a-client"

    def __init__(self, folder: Path, servers: list[Server]) -> None:
        assert NGINX is not None, "nginx is missing: run tools/setup.sh --test-tools"
        port, http_port = free_ports(2)
        self.address, self.http_port = f"127.0.0.1:{port}", http_port
        authority = Authority(folder, "authority")
        self.tls = Tls(root_certificates=authority.certificate)
        certificate, key = authority.issue("proxy")
        upstream = "".join(f"server {server.grpc_url} max_fails=1 fail_timeout=1s;" for server in servers)
        gateway = "map $host $gateway { default 127.0.0.1:1; }"  # nobody there
        (folder / "servers.conf").write_text(f"upstream nudenet {{ {upstream} keepalive 64; }}\n{gateway}\n")
        (folder / "keys.conf").write_text(f'"{self.KEY}" 1;')
        text = CONF.read_text()
        for shipped, here in (
            ("/tmp/", f"{folder}/"),
            ("/etc/nginx/servers.conf", f"{folder}/servers.conf"),
            ("/etc/nginx/keys/*.conf", f"{folder}/keys.conf"),
            ("/etc/nginx/tls/tls.crt", str(certificate)),
            ("/etc/nginx/tls/tls.key", str(key)),
            ("/dev/stderr", f"{folder}/error.log"),
            ("listen 8443 ", f"listen {self.address} "),
            ("listen 8444 ", f"listen 127.0.0.1:{http_port} "),
            ("worker_processes auto;", "worker_processes 1;"),
        ):
            assert shipped in text
            text = text.replace(shipped, here)
        conf = folder / "nginx.conf"
        conf.write_text(text)
        command = [NGINX, "-c", str(conf), "-p", str(folder), "-e", str(folder / "error.log"), "-g", "daemon off;"]
        self.process = subprocess.Popen(command)


@pytest.fixture(scope="module")
def nginx(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    proxy = Proxy(tmp_path_factory.mktemp("nginx"), fleet.servers)
    try:
        yield proxy
    finally:
        proxy.process.terminate()
        proxy.process.wait(10)


@pytest.fixture(params=[pytest.param("nginx", marks=pytest.mark.needs("nginx")), "client"])
def client(request: pytest.FixtureRequest, fleet: Fleet) -> Iterator[Client]:
    """A client that reaches all three servers one way or the other."""
    if request.param == "nginx":
        proxy: Proxy = request.getfixturevalue("nginx")
        found = Client(proxy.address, tls=proxy.tls, api_key=proxy.KEY, retries=6)
    else:
        found = Client("ipv4:" + ",".join(server.grpc_url for server in fleet.servers), round_robin=True, retries=6)
    with found:
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
    """How many of `count` requests each server answered; Triton may count one a moment after its answer."""
    before = fleet.served()
    assert answers(client, picture, count) == count
    return [after - earlier for after, earlier in zip(fleet.served(), before, strict=True)]


def test_even_split_then_one_dies_under_load_and_comes_back(fleet: Fleet, client: Client, astronaut: bytes):
    def everybody_takes_part() -> bool:
        return all(share > 0 for share in split(fleet, client, astronaut, 6))

    until(everybody_takes_part)  # all connections stand
    shares = split(fleet, client, astronaut, 90)
    assert min(shares) > 0 and max(shares) - min(shares) <= 9, shares

    alive_before = fleet.served()
    assert answers(client, astronaut, 120, at_third=lambda: fleet.kill(1)) == 120
    assert fleet.served()[1] == 0
    for index in (0, 2):  # the other two took over its share
        assert fleet.served()[index] - alive_before[index] >= 45

    fleet.servers[1].start()
    until(everybody_takes_part)
    shares = split(fleet, client, astronaut, 90)
    assert max(shares) - min(shares) <= 9, shares


def refusal(ask: Callable[[], object]) -> str:
    """Status and message with which a call is refused."""
    with pytest.raises(InferenceServerException) as caught:
        ask()
    return f"{caught.value.status()}: {caught.value.message()}"


@pytest.mark.needs("nginx")
def test_the_proxy_lets_nobody_in_without_key_and_encryption(fleet: Fleet, nginx: Proxy, astronaut: bytes):
    image = grpcclient.InferInput("image", [1, 1], "BYTES")
    image.set_data_from_numpy(np.array([[astronaut]], np.object_))
    key = {"api-key": nginx.KEY}
    with grpcclient.InferenceServerClient(
        nginx.address, ssl=True, root_certificates=str(nginx.tls.root_certificates)
    ) as client:
        assert client.is_server_ready(headers=key)
        for headers in ({}, {"api-key": "guess"}, {"api-key": ""}):
            assert "UNAUTHENTICATED: the metadata api-key" in refusal(
                functools.partial(client.infer, "nudenet", [image], headers=headers)
            )
        for administration in (
            client.get_model_repository_index,
            client.get_inference_statistics,
            client.get_trace_settings,
        ):
            assert "UNIMPLEMENTED: only ModelInfer" in refusal(functools.partial(administration, headers=key))
    with grpcclient.InferenceServerClient(nginx.address) as plain:
        assert "UNAVAILABLE" in refusal(lambda: plain.infer("nudenet", [image], headers=key, client_timeout=5))


@pytest.mark.needs("nginx")
def test_the_proxy_refuses_what_is_too_large_and_stays_open_for_others(fleet: Fleet, nginx: Proxy, astronaut: bytes):
    """As a picture, and as a request parameter, which Triton would copy to every step."""
    picture = grpcclient.InferInput("image", [1, 1], "BYTES")
    picture.set_data_from_numpy(np.array([[astronaut]], np.object_))
    large = grpcclient.InferInput("image", [1, 1], "BYTES")
    large.set_data_from_numpy(np.array([[bytes(limits.MESSAGE_BYTES)]], np.object_))
    before = [server.shared_memory_bytes() for server in fleet.servers]
    with grpcclient.InferenceServerClient(
        nginx.address, ssl=True, root_certificates=str(nginx.tls.root_certificates)
    ) as client:
        key = {"api-key": nginx.KEY}
        for arguments in (
            {"inputs": [large]},
            {"inputs": [picture], "parameters": {"classes": "x" * limits.MESSAGE_BYTES}},
        ):
            assert "RESOURCE_EXHAUSTED: the request exceeds 64 MiB" in refusal(
                functools.partial(client.infer, "nudenet", headers=key, client_timeout=60, **arguments)
            )
        assert client.infer("nudenet", [picture], headers=key).as_numpy("num_detections")[0, 0] == 1
    assert [server.shared_memory_bytes() for server in fleet.servers] == before


@pytest.mark.needs("nginx")
def test_bodies_that_do_not_come_leave_places_for_others(nginx: Proxy):
    """The body is read before the gateway sees a key. 48 of one address fill its share; others still get through."""
    trusted = ssl.create_default_context(cafile=nginx.tls.root_certificates)
    head = b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"

    def send(stack: contextlib.ExitStack, source: str, data: bytes) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", nginx.http_port), 30, (source, 0))
        connection = stack.enter_context(trusted.wrap_socket(plain, server_hostname="localhost"))
        connection.sendall(data)
        return connection

    with contextlib.ExitStack() as stack:
        slow = [send(stack, "127.0.0.1", head + b"some") for _ in range(60)]
        refused = http.client.HTTPResponse(slow[-1])
        refused.begin()
        assert (refused.status, json.load(refused)["error"]["code"]) == (503, "busy")
        other = http.client.HTTPResponse(send(stack, "127.0.0.2", head + bytes(100)))
        other.begin()
        assert json.load(other)["error"]["code"] == "unavailable"  # it was let through, to nobody in this test
