"""What a stranger can reach: nothing but inference on loopback, and gRPC with TLS where it was exposed."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException

from chaos.faults import supervised
from container.healthcheck import Canary, CanaryError, HttpCanary
from container.security import KEY_HEADER, Exposure
from container.supervisor import Watch
from helpers.tls_files import Authority
from nudenet_tools import ROOT
from nudenet_tools.server.process import LOOPBACK, Options, Ports, Server

SERVE = [sys.executable, str(ROOT / "tools" / "serve.py")]


@pytest.fixture(params=["server", "rehearsal"])
def either(request: pytest.FixtureRequest) -> Server:
    """The embedded server, and the production configuration."""
    return request.getfixturevalue(request.param)


def request(server: Server, method: str, path: str, body: dict | None = None, **headers: str) -> int:
    connection = http.client.HTTPConnection(server.http_url, timeout=10)
    try:
        connection.request(method, path, json.dumps(body or {}), headers)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", "/v2/systemsharedmemory/region/mine/register"),
        ("GET", "/v2/cudasharedmemory/status"),
        ("GET", "/v2/trace/setting"),
        ("POST", "/v2/trace/setting"),
        ("GET", "/v2/logging"),
        ("POST", "/v2/logging"),
    ],
)
def test_http_interfaces_that_reach_into_the_machine_are_closed(either, method, path):
    assert request(either, method, path) == 403
    assert request(either, method, path, **{KEY_HEADER: "guess"}) == 403
    opened = request(either, method, path, **{KEY_HEADER: either.options.admin_key}) != 403
    assert opened != ("sharedmemory" in path), "client shared memory is for nobody"


def test_grpc_interfaces_that_reach_into_the_machine_are_closed(either):
    calls = {
        "shared memory": lambda client, headers: client.get_system_shared_memory_status(headers=headers),
        "trace": lambda client, headers: client.get_trace_settings(headers=headers),
        "logging": lambda client, headers: client.get_log_settings(headers=headers),
    }
    with grpc.InferenceServerClient(either.grpc_url) as client:
        for name, call in calls.items():
            for headers in ({}, {f"triton-grpc-protocol-{KEY_HEADER}": "guess"}):
                with pytest.raises(InferenceServerException, match="restricted"):
                    call(client, headers)
            with_key = {f"triton-grpc-protocol-{KEY_HEADER}": either.options.admin_key}
            if name == "shared memory":  # for nobody
                with pytest.raises(InferenceServerException, match="restricted"):
                    call(client, with_key)
            else:
                call(client, with_key)


@pytest.mark.parametrize("action", ["load", "unload"])
def test_models_cannot_be_changed(either, action):
    assert request(either, "POST", f"/v2/repository/models/nudenet/{action}") >= 400
    assert either.is_ready()


def test_every_key_is_new():
    assert len({Options().admin_key for _ in range(8)}) == 8


def listening(server: Server) -> dict[int, set[str]]:
    """Port -> addresses on which the server listens."""
    assert server.process is not None
    found: dict[int, set[str]] = {}
    for connection in psutil.Process(server.process.pid).net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN:
            # gRPC listens on IPv6 sockets, also for IPv4 addresses.
            address = connection.laddr.ip.removeprefix("::ffff:").replace("::", "0.0.0.0")
            found.setdefault(connection.laddr.port, set()).add(address)
    return found


def test_everything_listens_on_loopback_only(server):
    ports = server.ports
    assert listening(server) == {port: {LOOPBACK} for port in (ports.http, ports.grpc, ports.metrics)}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"), "ours")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"), "theirs")


def ask(server: Server, ca: Authority | None, client: tuple[Path, Path] | None = None) -> float:
    """The canary picture over gRPC, trusting `ca` and showing the certificate of `client`; None: plaintext."""
    certificate, key = map(str, client) if client else (None, None)
    tls = {"ssl": ca is not None, "root_certificates": ca and str(ca.certificate)}
    with Canary(server.grpc_url, certificate_chain=certificate, private_key=key, **tls) as canary:
        return canary.ask(10)


def refused(*arguments) -> None:
    with pytest.raises(CanaryError, match="UNAVAILABLE"):
        ask(*arguments)


@pytest.mark.needs("openssl")
def test_exposed_grpc_is_encrypted_and_the_rest_stays_inside(onnx_path, authority, stranger):
    exposure = Exposure("0.0.0.0", *authority.issue("server"))
    with Server(Options(ports=Ports.free(), exposure=exposure)) as server:
        assert ask(server, authority) > 0
        refused(server, None)
        refused(server, stranger)
        ports = server.ports
        assert listening(server) == {ports.grpc: {"0.0.0.0"}, ports.http: {LOOPBACK}, ports.metrics: {LOOPBACK}}
        assert request(server, "POST", "/v2/repository/index") == 403
        assert request(server, "GET", "/v2/models/nudenet/stats") == 403


@pytest.mark.needs("openssl")
def test_mutual_tls_serves_only_known_clients_and_supervision_goes_on(onnx_path, authority, stranger):
    certificate, key = authority.issue("server")
    exposure = Exposure(LOOPBACK, certificate, key, client_ca=authority.certificate)
    options = Options(ports=Ports.free(), exposure=exposure)
    with supervised(Watch(canary_every=0.2), options) as (supervisor, _):
        server = supervisor.server
        assert ask(server, authority, authority.issue("client")) > 0
        refused(server, authority)
        refused(server, authority, stranger.issue("client"))
        refused(server, None)
        time.sleep(1)  # several canaries
        assert supervisor.restarts == 0
        with HttpCanary(server.http_url) as canary:
            assert canary.ask(10) > 0


def test_the_canary_over_http_tells_why_it_failed():
    with HttpCanary(f"{LOOPBACK}:{Ports.free().http}") as canary, pytest.raises(CanaryError, match="no answer"):
        canary.ask(2)


def serve(*arguments: object) -> subprocess.CompletedProcess:
    environment = os.environ | {"COLUMNS": "300"}
    command = [*SERVE, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.needs("openssl")
def test_serve_does_not_expose_without_encryption(authority):
    certificate, key = authority.issue("server")
    alone = serve("--expose", "0.0.0.0", "--tls-cert", certificate)
    assert alone.returncode == 2
    assert "needs --tls-cert and --tls-key: pictures never cross a network unencrypted" in alone.stderr
    useless = serve("--tls-cert", certificate, "--tls-key", key)
    assert useless.returncode == 2
    assert "TLS files need --expose ADDRESS" in useless.stderr
    missing = serve("--expose", "0.0.0.0", "--tls-cert", certificate, "--tls-key", "nowhere.pem")
    assert missing.returncode == 2
    assert "nowhere.pem" in missing.stderr
