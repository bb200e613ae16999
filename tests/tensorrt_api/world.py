"""What the stand-ins do: a machine with one GPU, on which the "plan" is the ONNX graph and ONNX Runtime is the engine.

So the numbers that reach the converter's comparison are real ones. Failures are switched on by attributes.
"""

from __future__ import annotations

import ctypes
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

FP32_BYTES = 4


class World:
    """Behaviour of TensorRT (``Class_method``) on this machine; the attributes say what goes wrong."""

    def __init__(self) -> None:
        self.trt: Any = None
        self.builder_starts = True
        self.parser_errors: list[tuple[str, str, str]] = []  # node, operator, description
        self.profile_index = 0
        self.build_succeeds = True
        self.build_messages: list[tuple[str, str]] = []  # severity, text
        self.timing_cache_fits = True
        self.interrupt_at_step: Callable[[], None] | None = None
        self.deserializes = True
        self.context_fits = True
        self.runs = True
        self.distort: Callable[[np.ndarray], np.ndarray] = lambda output: output
        self.phases: list[tuple[str, str | None, int]] = [("Building", None, 2), ("Tactics", "Building", 3)]
        self._logger: Any = None
        self._model = b""
        self._graph = onnx.GraphProto()
        self._profile: dict[str, tuple[int, ...]] = {}

    def _say(self, severity: str, text: str) -> None:
        self._logger.log(getattr(self.trt.ILogger.Severity, severity), text)

    # building

    def Builder_init(self, this: Any, logger: Any) -> None:
        if not self.builder_starts:
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    def Builder_create_network(self, this: Any, flags: int = 0) -> Any:
        wanted = self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        assert flags == 1 << int(wanted), "the network must be strongly typed, and nothing else"
        return self.trt.new("INetworkDefinition")

    def OnnxParser_init(self, this: Any, network: Any, logger: Any) -> None:
        pass

    def OnnxParser_parse_from_file(self, this: Any, model: str) -> bool:
        if self.parser_errors:
            return False
        self._model = Path(model).read_bytes()
        self._graph = onnx.load_from_string(self._model).graph
        return True

    def OnnxParser_num_errors(self, this: Any) -> int:
        return len(self.parser_errors)

    def OnnxParser_get_error(self, this: Any, index: int) -> Any:
        error = self.trt.new("ParserError")
        error.__dict__["index"] = index
        return error

    def ParserError_node(self, this: Any) -> int:
        return this.__dict__["index"]

    def ParserError_node_name(self, this: Any) -> str:
        return self.parser_errors[this.__dict__["index"]][0]

    def ParserError_node_operator(self, this: Any) -> str:
        return self.parser_errors[this.__dict__["index"]][1]

    def ParserError_desc(self, this: Any) -> str:
        return self.parser_errors[this.__dict__["index"]][2]

    def INetworkDefinition_num_inputs(self, this: Any) -> int:
        return len(self._graph.input)

    def INetworkDefinition_num_outputs(self, this: Any) -> int:
        return len(self._graph.output)

    def INetworkDefinition_get_input(self, this: Any, index: int) -> Any:
        return self._tensor(self._graph.input[index])

    def INetworkDefinition_get_output(self, this: Any, index: int) -> Any:
        return self._tensor(self._graph.output[index])

    def _tensor(self, info: onnx.ValueInfoProto) -> Any:
        tensor = self.trt.new("ITensor")
        sides = [dim.dim_value or -1 for dim in info.type.tensor_type.shape.dim]
        tensor.__dict__.update(name=info.name, shape=tuple(sides))
        return tensor

    def Builder_create_builder_config(self, this: Any) -> Any:
        return self.trt.new("IBuilderConfig")

    def IBuilderConfig_set_memory_pool_limit(self, this: Any, pool: Any, pool_size: int) -> None:
        pass

    def IBuilderConfig_clear_flag(self, this: Any, flag: Any) -> None:
        pass

    def IBuilderConfig_create_timing_cache(self, this: Any, serialized_timing_cache: bytes) -> Any:
        cache = self.trt.new("ITimingCache")
        cache.__dict__["content"] = bytes(serialized_timing_cache)
        return cache

    def IBuilderConfig_set_timing_cache(self, this: Any, cache: Any, ignore_mismatch: bool) -> bool:
        if cache.__dict__["content"] and not self.timing_cache_fits:
            return False
        this.__dict__["cache"] = cache
        return True

    def IBuilderConfig_get_timing_cache(self, this: Any) -> Any:
        return this.__dict__["cache"]

    def ITimingCache_serialize(self, this: Any) -> Any:
        return self._host_memory(this.__dict__["content"] + b"timings;")

    def _host_memory(self, content: bytes) -> Any:
        cls = self.trt.IHostMemory
        return cls.__new__(cls, content)

    def Builder_create_optimization_profile(self, this: Any) -> Any:
        return self.trt.new("IOptimizationProfile")

    def IOptimizationProfile_set_shape(self, this: Any, input: str, min: tuple, opt: tuple, max: tuple) -> None:
        assert min[1:] == opt[1:] == max[1:] and min[0] <= opt[0] <= max[0]
        self._profile = {"min": min, "max": max}

    def IBuilderConfig_add_optimization_profile(self, this: Any, profile: Any) -> int:
        return self.profile_index

    def Builder_build_serialized_network(self, this: Any, network: Any, config: Any) -> Any:
        monitor = config.progress_monitor
        cancelled = False
        for name, parent, steps in self.phases:
            monitor.phase_start(name, parent, steps)
        for name, _, steps in reversed(self.phases):
            for step in range(steps):
                if self.interrupt_at_step:
                    self.interrupt_at_step()
                cancelled = cancelled or not monitor.step_complete(name, step)
            monitor.phase_finish(name)
        for severity, text in self.build_messages:
            self._say(severity, text)
        return self._host_memory(self._model) if self.build_succeeds and not cancelled else None

    # running

    def Runtime_init(self, this: Any, logger: Any) -> None:
        self._logger = logger

    def Runtime_deserialize_cuda_engine(self, this: Any, serialized_engine: bytes) -> Any:
        if not self.deserializes:
            self._say("ERROR", "Version tag does not match")
            return None
        engine = self.trt.new("ICudaEngine")
        engine.__dict__["session"] = onnxruntime.InferenceSession(bytes(serialized_engine))
        return engine

    def _tensors(self, this: Any) -> list:
        session = this.__dict__["session"]
        return [*session.get_inputs(), *session.get_outputs()]

    def ICudaEngine_num_io_tensors(self, this: Any) -> int:
        return len(self._tensors(this))

    def ICudaEngine_get_tensor_name(self, this: Any, index: int) -> str:
        return self._tensors(this)[index].name

    def ICudaEngine_get_tensor_mode(self, this: Any, name: str) -> Any:
        inputs = [tensor.name for tensor in this.__dict__["session"].get_inputs()]
        return self.trt.TensorIOMode.INPUT if name in inputs else self.trt.TensorIOMode.OUTPUT

    def ICudaEngine_get_tensor_dtype(self, this: Any, name: str) -> Any:
        return self.trt.DataType.FLOAT

    def ICudaEngine_get_tensor_shape(self, this: Any, name: str) -> Any:
        shape = next(tensor.shape for tensor in self._tensors(this) if tensor.name == name)
        return (-1, *shape[1:])

    def ICudaEngine_create_execution_context(self, this: Any) -> Any:
        if not self.context_fits:
            return None
        context = self.trt.new("IExecutionContext")
        context.__dict__.update(session=this.__dict__["session"], addresses={}, shape=None)
        return context

    def IExecutionContext_set_input_shape(self, this: Any, name: str, shape: tuple) -> bool:
        this.__dict__["shape"] = tuple(shape)
        return self._profile["min"][0] <= shape[0] <= self._profile["max"][0]

    def IExecutionContext_infer_shapes(self, this: Any) -> list[str]:
        return []

    def IExecutionContext_get_tensor_shape(self, this: Any, name: str) -> Any:
        session = this.__dict__["session"]
        if name == session.get_inputs()[0].name:
            return this.__dict__["shape"]
        return (this.__dict__["shape"][0], *session.get_outputs()[0].shape[1:])

    def IExecutionContext_set_tensor_address(self, this: Any, name: str, memory: int) -> bool:
        this.__dict__["addresses"][name] = memory
        return True

    def IExecutionContext_execute_async_v3(self, this: Any, stream_handle: int) -> bool:
        if not self.runs:
            return False
        state = this.__dict__
        size = int(np.prod(state["shape"]))
        source = (ctypes.c_float * size).from_address(state["addresses"]["input"])
        batch = np.ctypeslib.as_array(source).reshape(state["shape"])
        output = np.ascontiguousarray(self.distort(state["session"].run(["output"], {"input": batch})[0]), np.float32)
        ctypes.memmove(state["addresses"]["output"], output.ctypes.data, output.nbytes)
        return True


class Gpu:
    """Behaviour of the CUDA runtime, with the "device" memory on the heap; counts what is not given back."""

    def __init__(self, count: int = 1, compute_capability: tuple[int, int] = (9, 0)) -> None:
        self.runtime: Any = None
        self.count = count
        self.compute_capability = compute_capability
        self.memory_left = 1 << 40
        self.held: dict[int, Any] = {}
        self._next = 1

    def _ok(self, *values: Any) -> tuple:
        return (self.runtime.cudaError_t.cudaSuccess, *values)

    def _hold(self, thing: Any, handle: int | None = None) -> int:
        self._next += 1
        handle = self._next if handle is None else handle
        self.held[handle] = thing
        return handle

    def _release(self, handle: int) -> tuple:
        del self.held[handle]
        return self._ok()

    def cudaGetDeviceCount(self) -> tuple:
        if not self.count:
            return (self.runtime.cudaError_t.cudaErrorNoDevice, None)
        return self._ok(self.count)

    def cudaSetDevice(self, device: int) -> tuple:
        return self._ok()

    def cudaGetDeviceProperties(self, device: int) -> tuple:
        major, minor = self.compute_capability
        return self._ok(types.SimpleNamespace(name=b"Stand-in GPU\0\0", major=major, minor=minor))

    def cudaMemGetInfo(self) -> tuple:
        return self._ok(self.memory_left, 1 << 40)

    def cudaMalloc(self, size: int) -> tuple:
        if size > self.memory_left:
            return (self.runtime.cudaError_t.cudaErrorMemoryAllocation, None)
        self.memory_left -= size
        memory = ctypes.create_string_buffer(size)
        return self._ok(self._hold(memory, ctypes.addressof(memory)))

    cudaMallocHost = cudaMalloc
    cudaFree = cudaFreeHost = cudaStreamDestroy = cudaEventDestroy = _release

    def cudaStreamCreate(self) -> tuple:
        return self._ok(self._hold("stream"))

    def cudaEventCreate(self) -> tuple:
        return self._ok(self._hold("event"))

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
