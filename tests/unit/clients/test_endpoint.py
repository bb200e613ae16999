"""Addresses as people write them, and proxies: none before this machine's own servers, the environment's elsewhere."""

import http.server
import threading

import pytest

from helpers.scripted_triton import scripted_triton
from nudenet_client import Client, ClientError, ServerUnavailable
from nudenet_client.endpoint import Endpoint, parse, proxy_for


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("127.0.0.1:8001", Endpoint("127.0.0.1:8001")),
        ("http://127.0.0.1:8000/", Endpoint("127.0.0.1:8000")),
        ("HTTP://host:80", Endpoint("host:80")),
        ("https://host/", Endpoint("host:443", tls=True)),
        ("grpcs://[::1]:8001", Endpoint("[::1]:8001", tls=True)),
        ("dns:///host:8001", Endpoint("dns:///host:8001")),
        ("ipv4:10.0.0.1:1,10.0.0.2:1", Endpoint("ipv4:10.0.0.1:1,10.0.0.2:1")),
    ],
)
def test_addresses_are_read_as_people_write_them(url, expected):
    assert parse(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host",
        "host:",
        ":8001",
        "host:port",
        "host:70000",
        "http://host",
        "ftp://host:1",
        "http://host:1/v2",
        "http://user:secret@host:1",
        "http://host:1?a=b",
        "http://[::1:8001",
    ],
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ClientError, match="expected") as caught:
        parse(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "loopback"),
    [
        ("127.0.0.1:1", True),
        ("127.8.8.8:1", True),
        ("localhost:1", True),
        ("LOCALHOST.:1", True),
        ("[::1]:1", True),
        ("dns:///localhost:1", True),
        ("ipv4:127.0.0.1:1,127.0.0.2:1", True),
        ("unix:/run/triton.sock", True),
        ("ipv4:127.0.0.1:1,10.0.0.1:1", False),
        ("128.0.0.1:1", False),
        ("localhost.example:1", False),
        ("[::2]:1", False),
    ],
)
def test_loopback_is_told_from_elsewhere(target, loopback):
    assert Endpoint(target).is_loopback == loopback


@pytest.fixture
def proxy(monkeypatch):
    """An HTTP proxy that answers everything with 503 and keeps what it was asked, in the environment."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def _refuse(self):
            if "microsoft.com" not in self.path:  # ONNX Runtime's telemetry, where another test has loaded it
                asked.append(f"{self.command} {self.path}")
            self.send_error(503)

        do_CONNECT = do_POST = do_GET = _refuse

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        for name in ("http_proxy", "https_proxy", "grpc_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_address[1]}")
        for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield asked
        server.shutdown()


def test_loopback_never_goes_through_a_proxy(proxy):
    with scripted_triton(lambda number, context: None) as server:
        for host in ("127.0.0.1", "localhost"):
            url = server.url.replace("127.0.0.1", host)
            assert Client(url, retries=0).detect(b"picture1").labels == ("FACE_MALE",)
    with pytest.raises(ServerUnavailable):
        Client("127.0.0.1:1", protocol="http", retries=0).detect(b"picture1")
    assert proxy == []


def test_other_addresses_follow_the_environment(proxy, monkeypatch):
    for url, protocol in (
        ("triton.invalid:8001", "grpc"),
        ("triton.invalid:8000", "http"),
        ("https://triton.invalid", "http"),
    ):
        with pytest.raises(ClientError):
            Client(url, protocol=protocol, retries=0, deadline=10).detect(b"picture1")
    assert proxy == [
        "CONNECT triton.invalid:8001",
        "POST http://triton.invalid:8000/v2/models/nudenet/infer",
        "CONNECT triton.invalid:443",
    ]
    monkeypatch.setenv("no_proxy", ".invalid")
    assert proxy_for(parse("triton.invalid:8000")) is None
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
    with pytest.raises(ClientError, match="http_proxy"):
        proxy_for(parse("triton.invalid:8000"))
