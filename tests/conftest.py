"""Fixtures shared by all tests: one real server for the session, and the bundled pictures."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from container.repository import MODEL_REPOSITORY
from helpers.client_packages import install_node_client, install_python_client
from nudenet_tools.server import process, system_packages
from nudenet_tools.server.prepare import ensure_onnx
from nudenet_tools.server.process import Options, Ports, Server

DATA = Path(__file__).parent / "data"

# A shell starts background jobs with Ctrl-C ignored, which they pass on to the programs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Proxies would catch requests to servers that tests start; terminals and CI services colour and wrap texts.
# Tests of such variables set them.
TERMINAL = ("FORCE_COLOR", "NO_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "COLUMNS", "LINES")
for name in [*os.environ]:
    if name.lower().endswith("_proxy") or name in TERMINAL:
        del os.environ[name]

# kubectl, node and npm come with the virtual environment.
os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

LEFT_OUT = pytest.StashKey[dict[str, int]]()
WITH_SERVER = ("server", "accuracy")  # folders of tests that start tritonserver


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests that need a system package which is missing and which set-up cannot install here."""
    absent = {package.program: package for package in system_packages.missing()}
    absent = {program: package for program, package in absent.items() if not system_packages.can_install(package.name)}
    kept, left_out, counts = [], [], dict.fromkeys((package.name for package in absent.values()), 0)
    for item in items:
        needed = [str(program) for marker in item.iter_markers("needs") for program in marker.args]
        if item.path.relative_to(DATA.parent).parts[0] in WITH_SERVER:
            needed.insert(0, "libpython")
        lacking = next((absent[program] for program in needed if program in absent), None)
        if lacking is None:
            kept.append(item)
        else:
            left_out.append(item)
            counts[lacking.name] += 1
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept
    config.stash[LEFT_OUT] = counts


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """One line for each package that tests were left out for."""
    for package, count in config.stash.get(LEFT_OUT, {}).items():
        if count:
            terminalreporter.write_line(f"NOT RUN: {count} tests need {package}, which is not installed", yellow=True)


@pytest.fixture(scope="session")
def onnx_path() -> Path:
    """The exported graph; built when it is not there yet."""
    ensure_onnx()
    return Path(__file__).parent.parent / "model_repository" / "nudenet_trt" / "1" / "model.onnx"


def models_with_reader(folder: Path, onnx_path: Path, first: str) -> Path:
    """A copy of the models in `folder`, whose reader of JPEG headers begins with the statement `first` about `data`."""
    models = folder / "models"
    shutil.copytree(MODEL_REPOSITORY, models, ignore=shutil.ignore_patterns("*.onnx", "__pycache__"))
    dynamic = onnx_path.with_suffix(".dynamic.onnx")
    (models / "nudenet_trt" / "1" / dynamic.name).symlink_to(dynamic)
    with (models / "nudenet" / "1" / "nudenet_steps" / "preprocess" / "jpeg.py").open("a") as module:
        module.write("_read_header = read_header\n")
        module.write(f"def read_header(data):\n    {first}\n    return _read_header(data)\n")
    return models


@pytest.fixture(scope="session")
def server(onnx_path: Path) -> Iterator[Server]:
    """The real tritonserver with the cpu configuration. Shared: do not kill or flood it."""
    with Server(Options(ports=Ports.free())) as running:
        yield running


@pytest.fixture(scope="session")
def rehearsal(onnx_path: Path) -> Iterator[Server]:
    """The real tritonserver with the production configuration, OpenVINO in place of the plan. Shared, as `server`."""
    with Server(process.rehearsal(ports=Ports.free())) as running:
        yield running


@pytest.fixture(scope="session")
def clean_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has the Python client and nothing else of this repository."""
    return install_python_client(tmp_path_factory.mktemp("clean"))


@pytest.fixture(scope="session")
def node_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Node.js project that has the packed client and nothing else of this repository."""
    folder = tmp_path_factory.mktemp("node")
    install_node_client(folder)
    return folder


@pytest.fixture(scope="session")
def astronaut() -> bytes:
    """A 1280x720 JPEG with one FACE_FEMALE."""
    return (DATA / "astronaut_720p.jpg").read_bytes()


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The bundled pictures."""
    return DATA
