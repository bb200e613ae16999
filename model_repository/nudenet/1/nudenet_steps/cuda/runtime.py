"""Calls to CUDA with their status checked, and page-locked arrays: what everything that uses a GPU needs.

Through cuda.bindings, without a framework. No Triton import.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

_REMEDIES = {
    "cudaErrorMemoryAllocation": "the GPU is out of memory; stop what else uses it (nvidia-smi) or use smaller batches",
    "cudaErrorNoDevice": "no usable GPU; see nvidia-smi for the driver, and start containers with --gpus all",
    "cudaErrorInsufficientDriver": "no usable GPU: the driver is missing or older than this CUDA; see nvidia-smi, and "
    "start containers with --gpus all",
}


class CudaError(RuntimeError):
    """CUDA is missing, refused a call or ran out of memory; the message says what to do."""


class Checked:
    """A module of ``cuda.bindings`` whose functions raise `CudaError` instead of returning a status.

    A function returns what follows its status: nothing, one value or a tuple. Everything else is the module's own.
    """

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._module, name)
        if callable(member) and not isinstance(member, type):
            member = _checked(name, member)
        self.__dict__[name] = member  # found without this function from now on
        return member


def _checked(name: str, function: Callable[..., tuple]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        status, *values = function(*arguments)
        if int(status) != 0:
            reason = getattr(status, "name", status)
            raise CudaError(f"{name} failed with {reason}: {_REMEDIES.get(str(reason), 'see nvidia-smi')}")
        return (values[0] if len(values) == 1 else tuple(values)) if values else None

    return call


def load() -> Any:
    """``cuda.bindings.runtime``, see `Checked`.

    Raises:
        CudaError: not installed, with what to install.
    """
    try:
        return Checked(importlib.import_module("cuda.bindings.runtime"))
    except ImportError as error:
        raise CudaError(
            f"cuda-bindings is not installed here ({error}): pip install -r requirements/cuda.txt to serve, "
            "requirements/tensorrt.txt to build a plan, beside an NVIDIA driver"
        ) from error


def page_locked(cuda: Any, shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """An array of zeros that the GPU reads and writes by itself; ``cudaFreeHost`` of its address frees it.

    Args:
        cuda: see `load`.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = (ctypes.c_uint8 * size).from_address(int(cuda.cudaMallocHost(size)))
    array = np.ctypeslib.as_array(memory).view(dtype).reshape(shape)
    array[...] = 0
    return array
