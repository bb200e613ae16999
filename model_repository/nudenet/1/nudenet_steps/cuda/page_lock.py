"""Shared memory that the GPU reads by itself: no copy into page-locked memory on the way. No Triton import.

Triton's Python backend hands tensors over in a file of /dev/shm that this process has mapped. Such a file grows: it is
then mapped once more, and the mappings before it stay until the process ends. So an address once locked stays so.
"""

from __future__ import annotations

import contextlib
from collections import deque
from pathlib import Path
from typing import Any

from nudenet_steps.cuda.runtime import CudaError

MAPS = Path("/proc/self/maps")
SHARED_MEMORY = "/dev/shm/"
# Other memory is not ours to lock, as it may be unmapped any time. Remembered only to spare reading the maps each time.
_REMEMBERED = 64


class PageLock:
    """Page-locks the shared memory that it is shown, each mapping once.

    Args:
        cuda: see `nudenet_steps.cuda.runtime.load`.
        maps: lists this process's mappings.
    """

    def __init__(self, cuda: Any, maps: Path = MAPS) -> None:
        self._cuda, self._maps = cuda, maps
        self._locked: list[tuple[int, int]] = []
        self._refused: deque[tuple[int, int]] = deque(maxlen=_REMEMBERED)

    def covers(self, address: int, size: int) -> bool:
        """Whether the GPU can copy `size` bytes at `address` by itself; locks their mapping if it can be."""
        if _inside(self._locked, address, size):
            return True
        if _inside(self._refused, address, 1):  # an array in other memory may span several mappings
            return False
        begin, end, path = self._mapping(address)
        if path.startswith(SHARED_MEMORY) and self._lock(begin, end):
            self._locked.append((begin, end))
            return address + size <= end
        self._refused.append((begin, end))
        return False

    def _lock(self, begin: int, end: int) -> bool:
        try:
            self._cuda.cudaHostRegister(begin, end - begin, self._cuda.cudaHostRegisterDefault)
        except CudaError:
            with contextlib.suppress(CudaError):  # it returns the error that it takes back
                self._cuda.cudaGetLastError()  # ONNX Runtime would stumble over it
            return False
        return True

    def _mapping(self, address: int) -> tuple[int, int, str]:
        """Begin, end and file of the mapping at `address`; no file for anonymous memory."""
        for line in self._maps.read_text().splitlines():
            span, *rest = line.split(maxsplit=5)
            begin, end = (int(value, 16) for value in span.split("-"))
            if begin <= address < end:
                return begin, end, rest[4] if len(rest) > 4 else ""
        return address, address, ""


def _inside(regions: Any, address: int, size: int) -> bool:
    return any(begin <= address and address + size <= end for begin, end in regions)
