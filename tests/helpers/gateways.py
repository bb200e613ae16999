"""The gateway as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import requests

from nudenet_tools import ROOT
from nudenet_tools.server.process import Ports

COMMAND = [sys.executable, str(ROOT / "tools" / "gateway.py")]


@contextmanager
def gateway(url: str, *options: str, **environment: str) -> Iterator[str]:
    """Run one in front of the server at `url`, HOST:PORT of gRPC; gives its address once it answers."""
    ports = Ports.free()
    command = [*COMMAND, f"--url={url}", f"--port={ports.http}", f"--metrics-port={ports.metrics}", *options]
    process = subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.PIPE, text=True)
    address = f"http://127.0.0.1:{ports.http}"
    try:
        for _ in range(600):
            assert process.poll() is None, process.communicate()[1]
            try:
                requests.get(f"{address}/health/live", timeout=5).raise_for_status()
                break
            except requests.RequestException:
                time.sleep(0.1)
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
