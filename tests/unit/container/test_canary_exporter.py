"""The canary exporter: says 0, and says it in time, when the server is away or does not answer."""

from __future__ import annotations

import contextlib
import http.server
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from container import canary_exporter


@pytest.fixture
def silent() -> Iterator[str]:
    """Address of something that takes connections and never says a word, like a hanging server."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def scrape(address: str, path: str = "/metrics") -> dict[str, float]:
    handler = canary_exporter.make_handler(address, address, timeout=0.5)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as exporter:
        threading.Thread(target=exporter.serve_forever, daemon=True).start()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{exporter.server_port}{path}", timeout=20) as response:
                lines = response.read().decode().splitlines()
        finally:
            exporter.shutdown()
    return {line.split(" ")[0]: float(line.split(" ")[1]) for line in lines if not line.startswith("#")}


def test_hanging_server_is_reported_after_the_timeout(silent: str):
    assert scrape(silent) == {
        f'nudenet_ready{{target="{silent}"}}': 0,
        f'nudenet_canary_success{{target="{silent}"}}': 0,
    }


def test_both_questions_are_asked_at_the_same_time(monkeypatch: pytest.MonkeyPatch):
    """One after the other, a server that hangs would outlast Prometheus's scrape timeout, and no alert would fire."""
    both = threading.Barrier(2, timeout=15)

    def waits(_url: str, _timeout: float) -> bool:
        both.wait()
        return True

    monkeypatch.setattr(canary_exporter, "is_ready", waits)
    monkeypatch.setattr(canary_exporter, "canary_succeeds", waits)
    assert set(scrape("127.0.0.1:9").values()) == {1}


def test_sigterm_ends_it_as_process_1_too():
    """By itself, which is status 0: the kernel's own answer to the signal, status -15, is not given to a process 1."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, canary_exporter.__file__, f"--port={port}"]
    with subprocess.Popen(command) as exporter:
        while exporter.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
                break
            time.sleep(0.02)
        exporter.terminate()
        assert exporter.wait(30) == 0


def test_no_server_is_reported():
    assert set(scrape("127.0.0.1:9").values()) == {0}


def test_nothing_but_metrics_is_served():
    with pytest.raises(urllib.error.HTTPError, match="404"):
        scrape("127.0.0.1:9", "/")
