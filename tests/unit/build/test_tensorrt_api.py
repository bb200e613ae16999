"""The recording of TensorRT's bindings that the converter's calls are held against is that of the real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tensorrt_api import record
from tensorrt_api.loosen import loosen


@pytest.mark.network
@pytest.mark.parametrize("version", record.BINDINGS)
def test_recording_is_what_the_bindings_say(version: str) -> None:
    assert record.record(version) == record.load()[version], "renew with: make tensorrt-api"


def test_records_overloads_without_the_generic_line() -> None:
    doc = """set_input_shape(*args, **kwargs)
Overloaded function.

1. set_input_shape(self: tensorrt_bindings.tensorrt.IExecutionContext, name: str, shape: tuple) -> bool
2. set_input_shape(self: tensorrt_bindings.tensorrt.IExecutionContext, name: str, shape: list) -> bool
"""
    assert record.signatures(doc, "set_input_shape") == [
        "set_input_shape(self: IExecutionContext, name: str, shape: tuple) -> bool",
        "set_input_shape(self: IExecutionContext, name: str, shape: list) -> bool",
    ]


def test_loosens_only_what_it_knows(tmp_path: Path) -> None:
    file = tmp_path / "tensorrt.so"
    file.write_bytes(b"not a library" * 10)
    with pytest.raises(ValueError, match="not a 64-bit little-endian ELF"):
        loosen(file)
