"""Process 1 of the images on the real server: it ends when a process of the server has died or hangs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException

from container.healthcheck import HttpCanary
from container.shared_memory import SHARED_MEMORY
from nudenet_tools import ROOT
from nudenet_tools.server.process import LOOPBACK, Ports

# The entry point itself; only the place of the server and the address differ from an image.
ENTRYPOINT = """
import sys
from container import entrypoint, security
from nudenet_tools.server.process import Server
entrypoint.Server = Server
entrypoint.ADDRESS = security.LOOPBACK
sys.exit(entrypoint.main())
"""


class Container:
    """Process 1, without the container around it."""

    def __init__(self) -> None:
        self.ports = Ports.free()
        environment = os.environ | {"PYTHONPATH": str(ROOT / "tools"), "MODEL_CONFIG_NAME": "cpu"}
        arguments = [f"--{name}-port={port}" for name, port in vars(self.ports).items()]
        self.process = subprocess.Popen(
            [sys.executable, "-c", ENTRYPOINT, *arguments], env=environment, stdout=subprocess.PIPE, text=True
        )
        self.log: list[str] = []
        self.read_until("watching")

    def read_until(self, sign: str) -> None:
        """Read the log up to a line with `sign`, or to its end."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.log.append(line)
            if sign in line:
                return

    def region_prefix(self) -> str:
        """What this run's regions in /dev/shm are called."""
        (prefix,) = re.findall(r"shm-region-prefix-name=(\S+)", " ".join(self.find("--model-repository").cmdline()))
        return prefix

    def find(self, what: str) -> psutil.Process:
        """A process of the server by a word of its command line."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return next(child for child in children if what in " ".join(child.cmdline()))


@pytest.fixture
def start(onnx_path: Path) -> Iterator[Callable[[], Container]]:
    started: list[Container] = []

    def call() -> Container:
        started.append(Container())
        return started[-1]

    yield call
    for container in started:
        container.process.kill()
        container.process.wait()
        assert container.process.stdout is not None
        container.process.stdout.close()


def regions(prefix: str) -> set[str]:
    """Names of what one run of a server keeps in /dev/shm."""
    return {path.name for path in SHARED_MEMORY.glob(f"{prefix}*")}


def test_it_closes_administration_and_ends_with_the_server(start: Callable[[], Container]):
    container = start()
    prefix = container.region_prefix()
    assert len(regions(prefix)) > 3
    url = f"{LOOPBACK}:{container.ports.http}"
    with HttpCanary(url) as canary:
        canary.ask(10)
    with httpclient.InferenceServerClient(url) as client:
        for ask in (client.get_model_repository_index, client.get_inference_statistics, client.get_trace_settings):
            with pytest.raises(InferenceServerException, match="restricted"):
                ask()
    container.find("nudenet_postprocess").kill()
    assert container.process.wait(60) == 1
    container.read_until("ending")
    assert "a Python process of nudenet_postprocess died" in container.log[-1]
    assert not regions(prefix)


def test_what_a_killed_run_left_is_removed_by_the_next(start: Callable[[], Container]):
    first = start()
    prefix = first.region_prefix()
    server = first.find("--model-repository")
    processes = [server, *server.children()]
    first.process.kill()
    for process in processes:
        process.kill()
    psutil.wait_procs(processes, 10)
    assert regions(prefix)
    second = start()
    assert not regions(prefix)
    second.process.send_signal(signal.SIGTERM)
    assert second.process.wait(60) == 0
