"""A GPU's part of TensorRT: running engines. No machine of ours can; ONNX Runtime computes, memory is host memory.

It takes the calls in the order that NVIDIA documents and fails on any other: objects outlive what is made from them,
the runtime configuration is complete before its context, shapes and addresses come before a run, a run stays within
the buffers. Failures are switched on by attributes. `kernels` are what TensorRT for RTX compiles and caches.
"""

from __future__ import annotations

import ctypes
import inspect
import types
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from tensorrt_api.spy import Calls

CACHE_HEAD = b"kernels of this GPU:"


class World:
    """Behaviour of the runtime classes; the attributes say what goes wrong."""

    def __init__(self, library: Any, graph: Path, gpu: Gpu, calls: Calls | None = None) -> None:
        self.library, self.graph, self.gpu = library, graph, gpu
        self.calls = calls or Calls()
        self.deserializes = self.context_fits = self.runs = self.accepts_addresses = True
        self.invalid_bits = 0
        self.largest_batch = 8
        self.profiles = [((1, 1), (320, 320))]  # least and largest (height, width) of each
        self.distort: Callable[[np.ndarray], np.ndarray] = lambda output: output
        self.compiled: list[tuple[int, ...]] = []  # shapes, in this process and not from a cache
        self.captured: set[tuple[int, ...]] = set()

    def runtime_class(self) -> type:
        """What stands in for ``Runtime``."""
        return type("Runtime", (_Runtime,), {"world": self})


class _Runtime:
    world: World

    def __init__(self, logger: Any) -> None:
        self.world.calls.add("Runtime.__init__", (logger,))
        self._logger = weakref.ref(logger)

    def get_engine_validity(self, buffer: bytes) -> tuple[Any, int]:
        validity = self.world.library.EngineValidity
        return (validity.INVALID if self.world.invalid_bits else validity.VALID), self.world.invalid_bits

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        self.world.calls.add("Runtime.deserialize_cuda_engine", (serialized_engine,))
        logger = self._logger()
        assert logger is not None, "the logger must outlive the runtime"
        if not self.world.deserializes:
            logger.log(logger.Severity.ERROR, "Version tag does not match")
            return None
        return _Engine(self.world, self)


class _Engine:
    def __init__(self, world: World, runtime: _Runtime) -> None:
        self.world, self._runtime = world, weakref.ref(runtime)
        self._session = onnxruntime.InferenceSession(world.graph)
        self._inputs = {tensor.name: tensor for tensor in self._session.get_inputs()}
        self._tensors = {**self._inputs, **{tensor.name: tensor for tensor in self._session.get_outputs()}}

    @property
    def num_io_tensors(self) -> int:
        self.world.calls.add("ICudaEngine.num_io_tensors")
        return len(self._tensors)

    def get_tensor_name(self, index: int) -> str:
        self.world.calls.add("ICudaEngine.get_tensor_name", (index,))
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        self.world.calls.add("ICudaEngine.get_tensor_mode", (name,))
        mode = self.world.library.TensorIOMode
        return mode.INPUT if name in self._inputs else mode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        self.world.calls.add("ICudaEngine.get_tensor_dtype", (name,))
        types_ = {"tensor(float)": "FLOAT", "tensor(uint8)": "UINT8"}
        return getattr(self.world.library.DataType, types_[self._tensors[name].type])

    @property
    def num_optimization_profiles(self) -> int:
        self.world.calls.add("ICudaEngine.num_optimization_profiles")
        return len(self.world.profiles)

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        self.world.calls.add("ICudaEngine.get_tensor_profile_shape", (name, profile_index))
        assert name in self._inputs, "outputs have no profile shapes"
        least, most = self.world.profiles[profile_index]
        return [(1, 3, *least), (1, 3, *least), (self.world.largest_batch, 3, *most)]

    def create_runtime_config(self) -> Any:
        return _RuntimeConfig(self.world)

    def create_execution_context(self, runtime_config: Any = None) -> Any:
        self.world.calls.add(
            "ICudaEngine.create_execution_context", () if runtime_config is None else (runtime_config,)
        )
        assert self._runtime() is not None, "the runtime must outlive the engine"
        if runtime_config is not None:
            runtime_config.frozen = True
        return _Context(self.world, self, self._session, runtime_config) if self.world.context_fits else None


class _RuntimeConfig:
    """``IRuntimeConfig``: nothing may change once a context is made from it."""

    frozen = False

    def __init__(self, world: World) -> None:
        self.__dict__.update(world=world, cache=None)

    def __setattr__(self, name: str, value: Any) -> None:
        known = ("cuda_graph_strategy", "dynamic_shapes_kernel_specialization_strategy", "frozen")
        assert name in known, f"IRuntimeConfig has no {name}"
        assert not self.frozen, f"{name} is set after the context was made"
        self.__dict__[name] = value

    def create_runtime_cache(self) -> Any:
        return _RuntimeCache(self.world)

    def set_runtime_cache(self, cache: Any) -> bool:
        assert not self.frozen, "the cache is set after the context was made"
        self.__dict__["cache"] = cache
        return True


class _RuntimeCache:
    def __init__(self, world: World) -> None:
        self.world, self.shapes = world, set()

    def deserialize(self, blob: bytes) -> bool:
        if not bytes(blob).startswith(CACHE_HEAD):
            return False
        self.shapes = set(eval(bytes(blob).removeprefix(CACHE_HEAD).decode()))
        return True

    def serialize(self) -> bytes:
        return CACHE_HEAD + repr(sorted(self.shapes)).encode()


class _Context:
    def __init__(self, world: World, engine: _Engine, session: Any, config: Any) -> None:
        self.world, self._engine, self._session, self._config = world, weakref.ref(engine), session, config
        self._inputs = {tensor.name: tensor for tensor in session.get_inputs()}
        self._profile = 0
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._inferred = False
        self._addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self.world.calls.add("IExecutionContext.set_optimization_profile_async", (profile_index, stream_handle))
        self._profile, self._shapes, self._inferred = profile_index, {}, False
        return True

    def set_input_shape(self, name: str, shape: tuple) -> bool:
        self.world.calls.add("IExecutionContext.set_input_shape", (name, shape))
        open_or_equal = zip(self._inputs[name].shape, shape, strict=True)
        fits = all(isinstance(side, str) or side == given for side, given in open_or_equal)
        least, most = self.world.profiles[self._profile]
        in_profile = all(low <= side <= high for low, side, high in zip(least, shape[2:], most, strict=True))
        self._shapes[name], self._inferred = tuple(shape), False
        return fits and in_profile and 1 <= shape[0] <= self.world.largest_batch

    def infer_shapes(self) -> list[str]:
        self.world.calls.add("IExecutionContext.infer_shapes")
        missing = [name for name in self._inputs if name not in self._shapes]
        self._inferred = not missing
        return missing

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        self.world.calls.add("IExecutionContext.get_tensor_shape", (name,))
        assert self._inferred, "shapes are read before infer_shapes"
        zeros = {name: np.zeros(shape, self._type(name)) for name, shape in self._shapes.items()}
        return self._session.run([name], zeros)[0].shape

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.world.calls.add("IExecutionContext.set_tensor_address", (name, memory))
        assert memory in self.world.gpu.held, "the address is no device memory"
        self._addresses[name] = memory
        return self.world.accepts_addresses

    def execute_async_v3(self, stream_handle: int) -> bool:
        self.world.calls.add("IExecutionContext.execute_async_v3", (stream_handle,))
        engine = self._engine()
        assert engine is not None, "the engine must outlive its context"
        assert stream_handle in self.world.gpu.held, "the default stream makes every run wait for the device"
        assert self._inferred, "infer_shapes comes before a run"
        if not self.world.runs:
            return False
        if self._config is not None:
            self._compile()
        sources = {name: self._view(name, shape, self._type(name)) for name, shape in self._shapes.items()}
        output = self.world.distort(self._session.run(["output"], sources)[0]).astype(np.float32)
        self._view("output", output.shape, np.dtype(np.float32))[...] = output
        return True

    def _compile(self) -> None:
        """Kernels of one shape, unless the cache has them; captured on the run after."""
        strategies = self.world.library
        eager = strategies.DynamicShapesKernelSpecializationStrategy.EAGER
        assert self._config.dynamic_shapes_kernel_specialization_strategy == eager
        assert self._config.cuda_graph_strategy == strategies.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        (shape,) = set(self._shapes.values())
        if shape not in self._config.cache.shapes:
            self.world.compiled.append(shape)
            self._config.cache.shapes.add(shape)
        else:
            self.world.captured.add(shape)

    def _type(self, name: str) -> np.dtype:
        return np.dtype(np.uint8 if self._inputs[name].type == "tensor(uint8)" else np.float32)

    def _view(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        memory = self.world.gpu.held[self._addresses[name]]
        size = int(np.prod(shape)) * dtype.itemsize
        assert size <= len(memory), f"the run would touch {size} bytes of {name}, {len(memory)} are allocated"
        part = (ctypes.c_uint8 * size).from_buffer(memory)
        return np.frombuffer(part, dtype).reshape(shape)  # type: ignore[call-overload]


class Gpu(types.ModuleType):
    """``cuda.bindings.runtime`` with the "device" memory on the heap; counts what is not given back."""

    def __init__(self, count: int = 1, compute_capability: tuple[int, int] = (8, 9)) -> None:
        super().__init__("cuda.bindings.runtime")
        from cuda.bindings import runtime

        self._real = runtime
        for name in (
            "cudaMemcpyKind",
            "cudaDeviceAttr",
            "cudaError_t",
            "cudaStreamNonBlocking",
            "cudaHostRegisterDefault",
        ):
            setattr(self, name, getattr(runtime, name))
        self.count, self.compute_capability = count, compute_capability
        self.memory_left = 1 << 40
        self.held: dict[int, Any] = {}
        self._next = 1

    def __getattribute__(self, name: str) -> Any:
        """Functions take as many arguments as the real ones."""
        member = super().__getattribute__(name)
        if not name.startswith("cuda") or not inspect.ismethod(member):
            return member
        wanted = len(inspect.signature(getattr(self._real, name)).parameters)

        def call(*arguments: Any) -> tuple:
            assert len(arguments) == wanted, f"{name} takes {wanted} arguments, got {len(arguments)}"
            return member(*arguments)

        return call

    def _ok(self, *values: Any) -> tuple:
        return (self.cudaError_t.cudaSuccess, *values)

    def _hold(self, thing: Any, handle: int | None = None) -> int:
        self._next += 1
        handle = self._next if handle is None else handle
        self.held[handle] = thing
        return handle

    def _release(self, handle: int) -> tuple:
        del self.held[handle]
        return self._ok()

    def cudaGetDeviceCount(self) -> tuple:
        return self._ok(self.count) if self.count else (self.cudaError_t.cudaErrorNoDevice, None)

    def cudaGetDevice(self) -> tuple:
        return self._ok(0)

    def cudaSetDevice(self, device: int) -> tuple:
        return self._ok()

    def cudaDeviceGetAttribute(self, attribute: Any, device: int) -> tuple:
        return self._ok(self.compute_capability[attribute.name.endswith("Minor")])

    def cudaGetDeviceProperties(self, device: int) -> tuple:
        major, minor = self.compute_capability
        return self._ok(types.SimpleNamespace(name=b"Stand-in GPU\0\0", major=major, minor=minor))

    def cudaMemGetInfo(self) -> tuple:
        return self._ok(self.memory_left, 1 << 40)

    def cudaMalloc(self, size: int) -> tuple:
        if size > self.memory_left:
            return (self.cudaError_t.cudaErrorMemoryAllocation, None)
        self.memory_left -= size
        memory = bytearray(size)
        return self._ok(self._hold(memory, ctypes.addressof((ctypes.c_uint8 * size).from_buffer(memory))))

    def cudaMallocHost(self, size: int) -> tuple:
        return self.cudaMalloc(size)

    def cudaMemset(self, devPtr: int, value: int, count: int) -> tuple:
        ctypes.memset(devPtr, value, count)
        return self._ok()

    def cudaFree(self, address: int) -> tuple:
        return self._release(address)

    def cudaFreeHost(self, address: int) -> tuple:
        return self._release(address)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple:
        assert flags == self.cudaStreamNonBlocking
        return self._ok(self._hold("stream"))

    def cudaStreamDestroy(self, stream: int) -> tuple:
        return self._release(stream)

    def cudaEventCreate(self) -> tuple:
        return self._ok(self._hold("event"))

    def cudaEventDestroy(self, event: int) -> tuple:
        return self._release(event)

    def cudaMemcpyAsync(self, dst: int, src: int, count: int, kind: Any, stream: int) -> tuple:
        assert stream in self.held
        ctypes.memmove(dst, src, count)
        return self._ok()

    def cudaStreamSynchronize(self, stream: int) -> tuple:
        return self._ok()

    def cudaEventRecord(self, event: int, stream: int) -> tuple:
        return self._ok()

    def cudaEventSynchronize(self, event: int) -> tuple:
        return self._ok()

    def cudaEventElapsedTime(self, start: int, end: int) -> tuple:
        return self._ok(0.5)
