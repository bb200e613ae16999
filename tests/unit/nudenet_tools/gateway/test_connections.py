"""Connections without a request, over real sockets: none stays open for ever, none fills the memory."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn

from nudenet_tools.gateway import connections

BEGIN = b"POST / HTTP/1.1\r\nHost: x\r\n"


async def refuse(scope, receive, send) -> None:
    """Answers 401 before the body is read."""
    if scope["path"] == "/read":
        while (await receive()).get("more_body"):
            pass
    await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"no"})


@pytest.fixture
def port(monkeypatch) -> Iterator[int]:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    config = uvicorn.Config(
        refuse, port=0, http=connections.BoundedConnection, lifespan="off", log_level="error", timeout_keep_alive=600
    )
    server = uvicorn.Server(config)
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    yield listening.getsockname()[1]
    server.should_exit = True
    server.force_exit = True
    thread.join(30)


def until_closed(port: int, *sent: bytes) -> bytes:
    """What comes back until the server closes; each part of `sent` follows the one before after a while."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        got = b""
        try:
            for data in sent:
                client.sendall(data)
                client.settimeout(0.05)
                with contextlib.suppress(TimeoutError):
                    got += client.recv(65536)
            client.settimeout(60)
            while data := client.recv(65536):
                got += data
        except (ConnectionResetError, BrokenPipeError):
            pass
        return got


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param((), id="nothing"),
        pytest.param((b"\r\n",), id="a line end"),
        pytest.param((BEGIN,), id="half a head"),
        pytest.param((BEGIN, *[b"X-A: b\r\n"] * 100), id="a head, line by line"),
    ],
)
def test_a_head_that_does_not_end_is_not_waited_for(port, sent):
    assert until_closed(port, *sent) == b""


def test_neither_is_a_second_one(port):
    answer = until_closed(port, BEGIN + b"Content-Length: 0\r\n\r\n", BEGIN)
    assert answer.startswith(b"HTTP/1.1 401")
    assert answer.count(b"HTTP/1.1") == 1


def test_a_body_after_the_answer_is_not_taken_for_ever(port):
    head = BEGIN + b"Transfer-Encoding: chunked\r\n\r\n"
    assert until_closed(port, head, *[b"1\r\nx\r\n"] * 100).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize("line", [b"X-A: " + b"b" * 1000 + b"\r\n", b"X: y\r\n"])
def test_a_head_without_bounds_is_refused(port, monkeypatch, line):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 600)
    answer = until_closed(port, BEGIN + line * (2_000_000 // len(line)))
    assert answer == b"" or answer.startswith(b"HTTP/1.1 431")


def test_requests_go_on_as_ever(port, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 600)
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for body in (b"", b"x" * 1_000_000, b"y"):
        client.request("POST", "/read", body=body, headers={"X-Long": "a" * 30_000})
        answer = client.getresponse()
        assert (answer.status, answer.read()) == (401, b"no")
    client.close()
