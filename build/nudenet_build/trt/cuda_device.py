"""The little CUDA that running an engine takes: buffers, a stream, events. Through cuda.bindings, without torch."""

from __future__ import annotations

import ctypes
import dataclasses
import importlib
from typing import Any

import numpy as np

INSTALL = "pip install -r requirements/tensorrt.txt (it holds cuda-bindings), beside an NVIDIA driver"


class CudaError(RuntimeError):
    """CUDA is missing, refused a call or ran out of memory; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class Gpu:
    """The GPU a plan is built for."""

    index: int
    name: str
    compute_capability: str  # e.g. 9.0
    free_bytes: int
    total_bytes: int


def load() -> Any:
    """The module ``cuda.bindings.runtime``.

    Raises:
        CudaError: not installed, with what to install.
    """
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise CudaError(f"cuda-bindings is not installed here ({error}). {INSTALL}") from error


def call(runtime: Any, name: str, *arguments: Any) -> Any:
    """Call a runtime function and return what it returns after its status: nothing, one value or a tuple.

    Raises:
        CudaError: the status is not success.
    """
    status, *values = getattr(runtime, name)(*arguments)
    if status != runtime.cudaError_t.cudaSuccess:
        remedy = ""
        if status == runtime.cudaError_t.cudaErrorMemoryAllocation:
            remedy = ": the GPU is out of memory; stop what else uses it (nvidia-smi) or use a smaller --batch-size"
        elif status in (runtime.cudaError_t.cudaErrorNoDevice, runtime.cudaError_t.cudaErrorInsufficientDriver):
            remedy = ": no usable GPU; see nvidia-smi for the driver, and start containers with --gpus all"
        raise CudaError(f"{name} failed with {getattr(status, 'name', status)}{remedy}")
    if not values:
        return None
    return values[0] if len(values) == 1 else tuple(values)


def select(runtime: Any, index: int) -> Gpu:
    """Make GPU `index` current for this thread and describe it.

    Raises:
        CudaError: there is no such GPU.
    """
    count = call(runtime, "cudaGetDeviceCount")
    if not 0 <= index < count:
        raise CudaError(f"there is no GPU {index}: this machine shows {count}, numbered from 0; choose with --device")
    call(runtime, "cudaSetDevice", index)
    properties = call(runtime, "cudaGetDeviceProperties", index)
    free, total = call(runtime, "cudaMemGetInfo")
    name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
    return Gpu(index, name.rstrip("\0"), f"{properties.major}.{properties.minor}", free, total)


class Buffers:
    """Device memory with page-locked host memory of the same size: two tensors, one stream, two events.

    Use as a context manager; everything is freed at its end, also after an error.
    """

    def __init__(self, runtime: Any, shapes: dict[str, tuple[int, ...]]) -> None:
        self._runtime = runtime
        self._shapes = shapes
        self._device: dict[str, int] = {}
        self._host: dict[str, int] = {}
        self.host: dict[str, np.ndarray] = {}  # FP32 views of the page-locked memory, at the largest size
        self.stream: Any = None
        self._events: list[Any] = []

    def __enter__(self) -> Buffers:
        try:
            for name, shape in self._shapes.items():
                elements = int(np.prod(shape))
                self._device[name] = int(call(self._runtime, "cudaMalloc", elements * 4))
                address = int(call(self._runtime, "cudaMallocHost", elements * 4))
                self._host[name] = address
                memory = (ctypes.c_float * elements).from_address(address)
                self.host[name] = np.ctypeslib.as_array(memory).reshape(shape)
            self.stream = call(self._runtime, "cudaStreamCreate")
            self._events = [call(self._runtime, "cudaEventCreate") for _ in range(2)]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: Any) -> None:
        self.host.clear()
        for event in self._events:
            self._runtime.cudaEventDestroy(event)
        if self.stream is not None:
            self._runtime.cudaStreamDestroy(self.stream)
        for address in self._host.values():
            self._runtime.cudaFreeHost(address)
        for address in self._device.values():
            self._runtime.cudaFree(address)
        self._events, self.stream = [], None
        self._host.clear()
        self._device.clear()

    def address(self, name: str) -> int:
        """Device address of tensor `name`."""
        return self._device[name]

    def upload(self, name: str, count: int) -> None:
        """Copy the first `count` rows to the GPU, on the stream."""
        self._copy(name, count, self._device[name], self._host[name], "cudaMemcpyHostToDevice")

    def download(self, name: str, count: int) -> None:
        """Copy the first `count` rows back, on the stream."""
        self._copy(name, count, self._host[name], self._device[name], "cudaMemcpyDeviceToHost")

    def _copy(self, name: str, count: int, to: int, source: int, direction: str) -> None:
        size = count * int(np.prod(self._shapes[name][1:])) * 4
        kind = getattr(self._runtime.cudaMemcpyKind, direction)
        call(self._runtime, "cudaMemcpyAsync", to, source, size, kind, self.stream)

    def wait(self) -> None:
        """Wait for everything on the stream."""
        call(self._runtime, "cudaStreamSynchronize", self.stream)

    def mark(self, which: int) -> None:
        """Record event 0 or 1 on the stream."""
        call(self._runtime, "cudaEventRecord", self._events[which], self.stream)

    def elapsed_ms(self) -> float:
        """Milliseconds between event 0 and event 1, after waiting for the second."""
        call(self._runtime, "cudaEventSynchronize", self._events[1])
        return float(call(self._runtime, "cudaEventElapsedTime", *self._events))
