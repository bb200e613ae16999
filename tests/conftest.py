"""Fixtures shared by all tests: one real server for the session, and the bundled pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from serve import ensure_onnx
from server import Options, Ports, Server

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def onnx_path() -> Path:
    """The exported graph; built when it is not there yet."""
    ensure_onnx()
    return Path(__file__).parent.parent / "model_repository" / "nudenet_trt" / "1" / "model.onnx"


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
