"""Choosing the GPU that a plan is built for, and timing on it."""

from __future__ import annotations

import dataclasses
from typing import Any

from nudenet_steps.cuda.runtime import CudaError


@dataclasses.dataclass(frozen=True)
class Gpu:
    """The GPU a plan is built for."""

    index: int
    name: str
    compute_capability: str  # e.g. 9.0
    free_bytes: int
    total_bytes: int

    def __str__(self) -> str:
        free = f"{self.free_bytes >> 20} of {self.total_bytes >> 20} MiB free"
        return f"{self.name} (compute capability {self.compute_capability}, {free})"


def select(cuda: Any, index: int) -> Gpu:
    """Make GPU `index` current for this thread and describe it.

    Args:
        cuda: see `nudenet_steps.cuda.runtime.load`.

    Raises:
        CudaError: there is no such GPU.
    """
    count = cuda.cudaGetDeviceCount()
    if not 0 <= index < count:
        raise CudaError(f"there is no GPU {index}: this machine shows {count}, numbered from 0; choose with --device")
    cuda.cudaSetDevice(index)
    properties = cuda.cudaGetDeviceProperties(index)
    free, total = cuda.cudaMemGetInfo()
    name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
    return Gpu(index, name.rstrip("\0"), f"{properties.major}.{properties.minor}", free, total)


class Stopwatch:
    """Time between two marks on a stream. Use as a context manager."""

    def __init__(self, cuda: Any, stream: Any) -> None:
        self._cuda, self._stream = cuda, stream

    def __enter__(self) -> Stopwatch:
        self._events = [self._cuda.cudaEventCreate() for _ in range(2)]
        return self

    def __exit__(self, *_: Any) -> None:
        for event in self._events:
            self._cuda.cudaEventDestroy(event)

    def mark(self, which: int) -> None:
        """Record mark 0 or 1."""
        self._cuda.cudaEventRecord(self._events[which], self._stream)

    def elapsed_ms(self) -> float:
        """Milliseconds between mark 0 and mark 1, after waiting for the second."""
        self._cuda.cudaEventSynchronize(self._events[1])
        return float(self._cuda.cudaEventElapsedTime(*self._events))
