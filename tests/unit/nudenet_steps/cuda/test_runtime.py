"""`runtime.py`: a status becomes an error that says what to do; page-locked arrays are laid out as asked for."""

from __future__ import annotations

import ctypes
import enum
import sys

import numpy as np
import pytest

from nudenet_steps.cuda import runtime


class Status(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorUnknown = 999


class Module:
    """Functions that answer as `cuda.bindings` does."""

    cudaError_t = Status
    cudaHostRegisterDefault = 0
    memory = ctypes.create_string_buffer(b"\xff" * 24)

    def cudaMallocHost(self, size):
        assert size == 24
        return Status.cudaSuccess, ctypes.addressof(self.memory)

    def cudaMemGetInfo(self):
        return Status.cudaSuccess, 1, 2

    def cudaFree(self, address):
        return ({0: Status.cudaSuccess, 1: Status.cudaErrorMemoryAllocation}.get(address, Status.cudaErrorUnknown),)


@pytest.fixture
def cuda():
    return runtime.Checked(Module())


def test_values_come_without_their_status(cuda):
    assert cuda.cudaMemGetInfo() == (1, 2)
    assert cuda.cudaFree(0) is None
    assert (cuda.cudaHostRegisterDefault, cuda.cudaError_t) == (0, Status)


def test_a_status_becomes_an_error_with_a_remedy(cuda):
    with pytest.raises(runtime.CudaError, match="cudaFree failed with cudaErrorMemoryAllocation: the GPU is out"):
        cuda.cudaFree(1)
    with pytest.raises(runtime.CudaError, match="cudaFree failed with cudaErrorUnknown: see nvidia-smi"):
        cuda.cudaFree(2)


def test_an_unknown_function_is_no_cuda_error(cuda):
    with pytest.raises(AttributeError, match="cudaMallocEverything"):
        cuda.cudaMallocEverything(1)


@pytest.mark.parametrize(("shape", "dtype"), [((2, 3), np.float32), ((4, 3, 2), np.uint8)])
def test_a_page_locked_array_is_zero_and_writable(cuda, shape, dtype):
    array = runtime.page_locked(cuda, shape, dtype)
    assert (array.shape, array.dtype, array.ctypes.data) == (shape, dtype, ctypes.addressof(Module.memory))
    assert not array.any()
    array[...] = 1
    assert Module.memory.raw[:24] == np.ones(shape, dtype).tobytes()


def test_missing_bindings_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(runtime.CudaError, match="pip install -r requirements"):
        runtime.load()
