"""Containers are tested where a docker engine answers; elsewhere one line says what was not run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import containers
from helpers.containers import Service
from helpers.ports import free_ports
from helpers.tls_files import Authority
from nudenet_client import Tls

HERE = Path(__file__).parent
LEFT_OUT = pytest.StashKey[int]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    own = [item for item in items if HERE in item.path.parents]
    if own and containers.lacking():
        config.hook.pytest_deselected(items=own)
        items[:] = [item for item in items if item not in own]
        config.stash[LEFT_OUT] = len(own)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if count := config.stash.get(LEFT_OUT, 0):
        terminalreporter.write_line(f"NOT RUN: {count} container tests need {containers.lacking()}", yellow=True)


@pytest.fixture(scope="session")
def cpu_image() -> str:
    """deploy/Dockerfile.cpu, built."""
    python, _ = containers.base_images()
    containers.provide(python)
    containers.build("Dockerfile.cpu", containers.CPU)
    return containers.CPU


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "authority")


@pytest.fixture(scope="session")
def tls(authority: Authority) -> Tls:
    """For clients of the proxy."""
    return Tls(root_certificates=authority.certificate)


@pytest.fixture(scope="session")
def service(cpu_image: str, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The cpu profile of deploy/compose.yaml with the gateway, answering."""
    _, nginx = containers.base_images()
    containers.provide(nginx)
    containers.build("Dockerfile.gateway", containers.GATEWAY)
    folder = tmp_path_factory.mktemp("service")
    with Service(folder, *authority.issue("proxy"), *free_ports(2)) as running:
        yield running
