"""CUDA's runtime on host memory, for tests without a GPU."""

from __future__ import annotations

import ctypes
import enum
import types

import numpy as np


def array_at(address, shape, dtype):
    """The memory at `address` as an array."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address)).view(dtype).reshape(shape)


class CudaOnHost(types.ModuleType):
    """`cuda.bindings.runtime` on host memory; copies are done when they are asked for."""

    cudaMemcpyKind = enum.IntEnum(
        "cudaMemcpyKind", "cudaMemcpyHostToDevice cudaMemcpyDeviceToHost cudaMemcpyDeviceToDevice"
    )
    cudaStreamNonBlocking = 1
    cudaHostRegisterDefault = 0

    def __init__(self):
        super().__init__("cuda.bindings.runtime")
        self.memory, self.copies, self.status, self.is_full = [], [], 0, False

    def cudaMalloc(self, size):
        if self.is_full:
            return 2, 0  # cudaErrorMemoryAllocation
        self.memory.append(ctypes.create_string_buffer(size))
        return 0, ctypes.addressof(self.memory[-1])

    cudaMallocHost = cudaMalloc

    def cudaFree(self, address):
        return (0,)

    cudaFreeHost = cudaSetDevice = cudaFree

    def cudaStreamCreateWithFlags(self, flags):
        return 0, 5

    def cudaStreamSynchronize(self, stream):
        return (0,)

    def cudaHostRegister(self, address, size, flags):
        return (0,)

    def cudaMemsetAsync(self, address, value, size, stream):
        ctypes.memset(address, value, size)
        return (0,)

    def cudaMemcpy(self, to, source, size, kind):
        return self.cudaMemcpyAsync(to, source, size, kind, None)

    def cudaMemcpyAsync(self, to, source, size, kind, stream):
        ctypes.memmove(to, source, size)
        self.copies.append((source, size, kind.name.removeprefix("cudaMemcpy")))
        return (self.status,)

    def cudaMemcpy2DAsync(self, to, pitch, source, source_pitch, width, height, kind, stream):
        for i in range(height):
            self.cudaMemcpyAsync(to + i * pitch, source + i * source_pitch, width, kind, stream)
        return (self.status,)
