"""Tensors in GPU memory on their way between steps, as DLPack capsules; no framework needed.

Layout: dlpack.h, version 0. No Triton import.
"""

from __future__ import annotations

import copy
import ctypes
import math
from typing import Any

import numpy as np

_NAME = b"dltensor"
_CUDA = 2  # kDLCUDA
# kDLUInt and kDLFloat with their bits
_TYPES: dict[np.dtype, tuple[int, int]] = {np.dtype(np.uint8): (1, 8), np.dtype(np.float32): (2, 32)}
_DTYPES = {code: dtype for dtype, code in _TYPES.items()}


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _ManagedTensor(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("manager", ctypes.c_void_p), ("deleter", _Deleter))


_new = ctypes.pythonapi.PyCapsule_New
_new.restype, _new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)

_alive: dict[int, tuple] = {}  # what a capsule refers to, until its consumer calls the deleter


@_Deleter
def _release(address: int) -> None:
    _alive.pop(address, None)


def export(address: int, shape: tuple[int, ...], dtype: Any, device: int) -> Any:
    """A capsule of `shape` at `address` on GPU `device`; the memory stays ours, and must outlast its consumer.

    Args:
        dtype: UINT8 or FP32.
    """
    dims = (ctypes.c_int64 * len(shape))(*shape)
    code, bits = _TYPES[np.dtype(dtype)]
    managed = _ManagedTensor(_Tensor(address, _CUDA, device, len(shape), code, bits, 1, dims, None, 0), None, _release)
    _alive[ctypes.addressof(managed)] = (managed, dims)
    return _new(ctypes.addressof(managed), _NAME, None)


class GpuTensor:
    """A tensor in GPU memory that somebody else owns; valid while this, or what was cut of it, lives.

    `address` is that of the first element, `strides` are in bytes; `shape` and `dtype` as in numpy.
    """

    def __init__(self, capsule: Any) -> None:
        tensor = _ManagedTensor.from_address(_pointer(capsule, _NAME)).tensor
        dtype = _DTYPES.get((tensor.code, tensor.bits))
        if tensor.device_type != _CUDA or dtype is None:
            raise ValueError("not a UINT8 or FP32 tensor in GPU memory")
        self._capsule = capsule
        self.shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
        self.dtype = dtype
        self.strides = tuple(dtype.itemsize * math.prod(self.shape[i + 1 :]) for i in range(tensor.ndim))
        self.address = tensor.data + tensor.byte_offset

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, slices: tuple[slice, ...]) -> GpuTensor:
        """What these slices, one for each dimension and all of step 1, cut out, as in numpy: a view."""
        cut = copy.copy(self)
        edges = [one.indices(length)[:2] for one, length in zip(slices, self.shape, strict=True)]
        cut.shape = tuple(end - start for start, end in edges)
        cut.address = self.address + sum(start * step for (start, _), step in zip(edges, self.strides, strict=True))
        return cut


def take(tensor: Any) -> np.ndarray | GpuTensor:
    """What a GPU engine takes, out of Triton's tensor: a view of its memory; its ``as_numpy`` is a copy."""
    return np.from_dlpack(tensor) if tensor.is_cpu() else GpuTensor(tensor.to_dlpack())
