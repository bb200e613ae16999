"""One TensorRT engine ready to run: an execution context on fixed buffers. No Triton import.

TensorRT 10.3 to 11.4 and TensorRT for RTX share these calls; what only the latter has is in `_rtx_context`.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np

from nudenet_steps.cuda.batch import Batch
from nudenet_steps.cuda.dlpack import GpuTensor
from nudenet_steps.cuda.page_lock import PageLock
from nudenet_steps.files import write_whole

OUTPUT = "output"


class ExecutionError(RuntimeError):
    """TensorRT refused the engine, a shape, a buffer or a run; the message says what to do."""


class Level(enum.IntEnum):
    """How serious a message of TensorRT is."""

    ERROR = 0
    WARNING = 1
    DETAIL = 2


_loggers: dict[type, Any] = {}


def make_logger(trt: Any, hear: Callable[[Level, str], None]) -> Any:
    """The ``ILogger`` of `trt`: TensorRT takes one a process. It hands every message to `hear` from now on."""
    logger = _loggers.get(trt.ILogger)
    if logger is None:
        logger = _loggers[trt.ILogger] = _logger_class(trt)()
    logger.hear = hear
    return logger


def _logger_class(trt: Any) -> Any:
    severity_type = trt.ILogger.Severity
    levels = {
        severity_type.INTERNAL_ERROR: Level.ERROR,
        severity_type.ERROR: Level.ERROR,
        severity_type.WARNING: Level.WARNING,
    }

    class Logger(trt.ILogger):
        hear: Callable[[Level, str], None]

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            self.hear(levels.get(severity, Level.DETAIL), msg)

    return Logger


class Loader:
    """Loads engines, and keeps what TensorRT says meanwhile."""

    def __init__(self, trt: Any) -> None:
        """Args: the module ``tensorrt`` or ``tensorrt_rtx``."""
        self.trt = trt
        self._errors: deque[str] = deque(maxlen=3)
        self.runtime = trt.Runtime(make_logger(trt, self._hear))

    def _hear(self, level: Level, text: str) -> None:
        if level is Level.ERROR:
            self._errors.append(text)

    def last_errors(self) -> str:
        """What TensorRT said last, an indented line each."""
        return "\n".join(f"  {error}" for error in self._errors) or "  (TensorRT gave no reason)"

    def load(self, plan: bytes) -> Any:
        """The ``ICudaEngine`` of a serialised engine, on the current GPU.

        Raises:
            ExecutionError: it does not load here.
        """
        engine = self.runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise ExecutionError(
                f"TensorRT {self.trt.__version__} cannot load the engine on this GPU:\n{self.last_errors()}"
            )
        return engine


class Execution:
    """An engine with one execution context and one stream, and memory for every input size that is served."""

    def __init__(
        self,
        loader: Loader,
        cuda: Any,
        plan: bytes,
        max_batch: int,
        sizes: Sequence[tuple[int, int]],
        kernel_cache: Path | None = None,
    ) -> None:
        """Load `plan` on the current GPU.

        Args:
            loader: of this process; it must outlive the execution.
            cuda: see `nudenet_steps.cuda.runtime.load`.
            plan: a serialised engine with the output ``output`` and one input, or one UINT8 and one FP32 input of equal
                shape that it adds up; of those, the one that is not sent is filled with zeros.
            max_batch: largest batch that will be run.
            sizes: (height, width) of the inputs that will be run.
            kernel_cache: TensorRT for RTX: file that keeps compiled kernels, read now and written by `warm_up`.

        Raises:
            ExecutionError: the engine does not load here, or is not one of nudenet_trt.
            CudaError: out of memory.
        """
        self._loader, self._trt, self._cuda, self._kernel_cache = loader, loader.trt, cuda, kernel_cache
        self._engine = loader.load(plan)
        self.inputs = self._check_tensors()
        is_rtx = hasattr(self._trt, "CudaGraphStrategy")
        self._context = self._rtx_context() if is_rtx else self._engine.create_execution_context()
        if self._context is None:
            raise self._error("the engine has no room to run; free the GPU (nvidia-smi)")
        self._shape: tuple[int, ...] = ()
        self._profile = 0
        self._bound: Batch | None = None
        with ExitStack() as stack:
            self.stream = cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking)
            stack.callback(cuda.cudaStreamDestroy, self.stream)
            page_lock = PageLock(cuda)
            self._batches: dict[tuple[int, int], dict[np.dtype, Batch]] = {}
            for height, width in sizes:
                shape = (max_batch, 3, height, width)
                output_shape = self._set_shape(shape)
                self._batches[height, width] = {}
                for dtype in self.inputs:
                    batch = Batch(cuda, page_lock, self.stream, shape, output_shape, dtype)
                    stack.callback(batch.close)
                    self._batches[height, width][dtype] = batch
            self._zeros: dict[np.dtype, int] = {}
            for dtype in self.inputs if len(self.inputs) > 1 else ():
                nbytes = max_batch * 3 * max(height * width for height, width in sizes) * dtype.itemsize
                self._zeros[dtype] = int(cuda.cudaMalloc(nbytes))
                stack.callback(cuda.cudaFree, self._zeros[dtype])
                cuda.cudaMemset(self._zeros[dtype], 0, nbytes)
            self._memory = stack.pop_all()

    def _error(self, what: str) -> ExecutionError:
        return ExecutionError(f"{what}:\n{self._loader.last_errors()}")

    def _check_tensors(self) -> dict[np.dtype, str]:
        """The inputs' names by type, the one that is usually sent first."""
        trt, engine = self._trt, self._engine
        known: dict[Any, np.dtype] = {trt.DataType.UINT8: np.dtype(np.uint8), trt.DataType.FLOAT: np.dtype(np.float32)}
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        types = {name: known.get(engine.get_tensor_dtype(name)) for name in names}
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        by_type = {dtype: name for dtype in known.values() for name in inputs if types[name] == dtype}
        if not inputs or len(by_type) != len(inputs) or types.pop(OUTPUT, None) != np.float32 or [*types] != inputs:
            raise ExecutionError(
                f"the engine has the tensors {names}, inputs {inputs}, expected one UINT8 input, one of FP32 or both, "
                f"and the FP32 output '{OUTPUT}'; build it from this project's ONNX graph"
            )
        return by_type

    def _rtx_context(self) -> Any:
        """A context of TensorRT for RTX: kernels for exactly the shapes that are run, kept on disk, in CUDA graphs."""
        config = self._engine.create_runtime_config()
        config.cuda_graph_strategy = self._trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        # The default answers with slower kernels until better ones are compiled; here all are before the first request.
        config.dynamic_shapes_kernel_specialization_strategy = self._trt.DynamicShapesKernelSpecializationStrategy.EAGER
        self._cache = config.create_runtime_cache()
        self._known = b""
        with suppress(OSError):
            self._known = self._kernel_cache.read_bytes() if self._kernel_cache else b""
        if self._known and not self._cache.deserialize(self._known):
            self._known = b""  # of another GPU, driver or version: compile again
        if not config.set_runtime_cache(self._cache):
            raise self._error("TensorRT for RTX refuses its own kernel cache")
        return self._engine.create_execution_context(config)

    def _set_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Tell the context the inputs' shape; returns the output's."""
        self._choose_profile(shape)
        for name in self.inputs.values():
            if not self._context.set_input_shape(name, shape):
                raise self._error(f"the engine refuses input {list(shape)}; build it again")
        missing = self._context.infer_shapes()
        if missing:
            raise ExecutionError(f"the engine wants shapes for {missing} too; build it from this project's ONNX graph")
        found = tuple(self._context.get_tensor_shape(OUTPUT))
        if len(found) != 3 or found[0] != shape[0] or found[2] != 6:
            raise ExecutionError(
                f"the engine's output is {list(found)}, expected [{shape[0]},candidates,6]; build it again"
            )
        self._shape = shape
        return found

    def _choose_profile(self, shape: tuple[int, ...]) -> None:
        """Switch to the first optimisation profile that holds `shape`."""
        engine, name = self._engine, next(iter(self.inputs.values()))
        for profile in range(engine.num_optimization_profiles):
            least, _, most = engine.get_tensor_profile_shape(name, profile)
            if all(low <= side <= high for low, side, high in zip(least, shape, most, strict=True)):
                break
        else:
            raise ExecutionError(f"no optimisation profile of the engine holds input {list(shape)}; build it again")
        if profile != self._profile:
            if not self._context.set_optimization_profile_async(profile, int(self.stream)):
                raise self._error(f"the engine refuses its optimisation profile {profile}; build it again")
            self._profile, self._bound = profile, None

    def _prepare(self, shape: tuple[int, ...], batch: Batch, dtype: np.dtype) -> None:
        """Set shape and addresses; nothing where the last run had the same."""
        if shape != self._shape:
            self._set_shape(shape)
        if batch is self._bound:
            return
        addresses = {OUTPUT: batch.output_address, self.inputs[dtype]: batch.input_address}
        addresses |= {self.inputs[other]: zeros for other, zeros in self._zeros.items() if other != dtype}
        for name, address in addresses.items():
            if not self._context.set_tensor_address(name, address):
                raise self._error(f"the engine refuses a buffer for {name}; build it again")
        self._bound = batch

    def replay(self, count: int, size: tuple[int, int], dtype: np.dtype | None = None) -> None:
        """Start a run of `count` pictures of `size` (height, width) on what lies in their input.

        Args:
            dtype: of the input that is used; None is the first of `inputs`.
        """
        dtype = dtype or next(iter(self.inputs))
        self._prepare((count, 3, *size), self._batches[size][dtype], dtype)
        if not self._context.execute_async_v3(int(self.stream)):
            raise self._error("the engine did not run; build it again on this GPU")

    def infer(self, parts: Sequence[np.ndarray | GpuTensor]) -> np.ndarray:
        """Run the parts as one batch.

        Args:
            parts: [n_i,3,height,width] each, of one type and one size that are served.

        Returns:
            FP32 [sum n_i,candidates,6]; valid until the next call for the same size and type.
        """
        first: Any = parts[0]
        size = (first.shape[2], first.shape[3])
        batch = self._batches[size][first.dtype]
        count = batch.send(parts)
        self.replay(count, size, first.dtype)
        return batch.fetch(count)

    def warm_up(self, max_batch: int) -> None:
        """Run every batch size of every input size twice, so that kernels are compiled and captured; keep the kernels.

        Raises:
            ExecutionError: a run failed.
            OSError: the kernels could not be written; the next start compiles them again.
        """
        for size in self._batches:
            for count in range(1, max_batch + 1):
                for _ in range(2):
                    self.replay(count, size)
        self._cuda.cudaStreamSynchronize(self.stream)
        if self._kernel_cache is not None:
            kernels = bytes(self._cache.serialize())
            if kernels != self._known:
                write_whole(self._kernel_cache, kernels)  # several instances may do it at the same time

    def close(self) -> None:
        """Free buffers and stream; the context goes before them."""
        self._context = None
        self._memory.close()
