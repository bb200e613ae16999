"""An engine's input and output on the GPU: parts of a batch go in from wherever they lie, candidates come out.

No Triton import.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from nudenet_steps.cuda.dlpack import GpuTensor
from nudenet_steps.cuda.page_lock import PageLock
from nudenet_steps.cuda.runtime import page_locked


class Batch:
    """Memory at fixed addresses, as CUDA graphs need, and the copies to and from it on one stream.

    The GPU fetches parts in shared memory, where Triton puts them, by itself: 0.1 ms for 8 pictures. Parts elsewhere in
    host memory go through page-locked memory, one being copied there while the one before is on its way: 0.6 ms.
    """

    def __init__(
        self,
        cuda: Any,
        page_lock: PageLock,
        stream: Any,
        input_shape: tuple[int, ...],
        output_shape: tuple[int, ...],
        input_dtype: Any = np.float32,
    ) -> None:
        """Allocate.

        Args:
            cuda: see `nudenet_steps.cuda.runtime.load`.
            page_lock: of this process.
            stream: every copy is made on it.
            input_shape, output_shape: with the largest batch first; the output is FP32.
        """
        self._cuda, self._page_lock, self._stream = cuda, page_lock, stream
        with ExitStack() as memory:  # frees what was allocated if the rest is refused
            self._host_input = page_locked(cuda, input_shape, input_dtype)
            memory.callback(cuda.cudaFreeHost, self._host_input.ctypes.data)
            self._host_output = page_locked(cuda, output_shape)
            memory.callback(cuda.cudaFreeHost, self._host_output.ctypes.data)
            self.input_address = int(cuda.cudaMalloc(self._host_input.nbytes))
            memory.callback(cuda.cudaFree, self.input_address)
            self.output_address = int(cuda.cudaMalloc(self._host_output.nbytes))
            memory.callback(cuda.cudaFree, self.output_address)
            self._memory = memory.pop_all()

    def input_shape(self, count: int) -> tuple[int, ...]:
        """Shape of the input for a batch of `count`."""
        return (count, *self._host_input.shape[1:])

    def output_shape(self, count: int) -> tuple[int, ...]:
        """Shape of the output for a batch of `count`."""
        return (count, *self._host_output.shape[1:])

    def send(self, parts: Sequence[np.ndarray | GpuTensor]) -> int:
        """Start copying the parts into the GPU's input, one after the other; returns how many pictures they hold."""
        start = 0
        for part in parts:
            self._send(part, start)
            start += len(part)
        return start

    def fetch(self, count: int) -> np.ndarray:
        """The first `count` rows of the output, once everything on the stream is done; valid until the next call."""
        output = self._host_output[:count]
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._cuda.cudaMemcpyAsync(output.ctypes.data, self.output_address, output.nbytes, kind, self._stream)
        self._cuda.cudaStreamSynchronize(self._stream)
        return output

    def _send(self, part: np.ndarray | GpuTensor, start: int) -> None:
        kinds, row = self._cuda.cudaMemcpyKind, self._host_input[0].nbytes
        target = self.input_address + start * row
        if isinstance(part, GpuTensor):
            self._copy_planes(part, target)
        else:
            address, kind = self._address(part, start), kinds.cudaMemcpyHostToDevice
            self._cuda.cudaMemcpyAsync(target, address, len(part) * row, kind, self._stream)

    def _copy_planes(self, part: GpuTensor, target: int) -> None:
        """From GPU to GPU: at once, or plane by plane where `part` was cut out of larger pictures."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        pictures, planes, height, width = part.shape
        line, plane = width * part.dtype.itemsize, height * width * part.dtype.itemsize
        if part.strides[:3] == (planes * plane, plane, line):
            self._cuda.cudaMemcpyAsync(target, part.address, pictures * planes * plane, kind, self._stream)
            return
        for i in range(pictures):
            for j in range(planes):
                source = part.address + i * part.strides[0] + j * part.strides[1]
                self._cuda.cudaMemcpy2DAsync(target, line, source, part.strides[2], line, height, kind, self._stream)
                target += plane

    def _address(self, part: np.ndarray, start: int) -> int:
        """Where the GPU can read `part`: in place, or copied to row `start` of the page-locked memory."""
        address = part.ctypes.data
        usable = part.dtype == self._host_input.dtype and part.flags.c_contiguous
        if usable and self._page_lock.covers(address, part.nbytes):
            return address
        staged = self._host_input[start : start + len(part)]
        np.copyto(staged, part)
        return staged.ctypes.data

    def close(self) -> None:
        """Free everything; arrays from `fetch` are gone with it."""
        self._memory.close()
