"""Fixtures shared by all tests: one real server for the session, and the bundled pictures."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from nudenet_tools.server.prepare import ensure_onnx
from nudenet_tools.server.process import Options, Ports, Server
from nudenet_tools.server.repository import MODEL_REPOSITORY

DATA = Path(__file__).parent / "data"

# A shell starts background jobs with Ctrl-C ignored, which they pass on to the programs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def onnx_path() -> Path:
    """The exported graph; built when it is not there yet."""
    ensure_onnx()
    return Path(__file__).parent.parent / "model_repository" / "nudenet_trt" / "1" / "model.onnx"


def models_with_reader(folder: Path, onnx_path: Path, first: str) -> Path:
    """A copy of the models in `folder`, whose reader of JPEG headers begins with the statement `first` about `data`."""
    models = folder / "models"
    shutil.copytree(MODEL_REPOSITORY, models, ignore=shutil.ignore_patterns("*.onnx", "__pycache__"))
    (models / "nudenet_trt" / "1" / "model.onnx").symlink_to(onnx_path)
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
def astronaut() -> bytes:
    """A 1280x720 JPEG with one FACE_FEMALE."""
    return (DATA / "astronaut_720p.jpg").read_bytes()


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The bundled pictures."""
    return DATA
