"""One TensorRT engine ready to run: an execution context on fixed buffers. No Triton import.

TensorRT 10.3 to 11.4 and TensorRT for RTX share these calls; what only the latter has is in `_rtx_context`.
"""

from __future__ import annotations

import enum
import os
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np

from nudenet_steps.cuda.batch import Batch
from nudenet_steps.cuda.dlpack import GpuTensor
from nudenet_steps.cuda.page_lock import PageLock

OUTPUT = "output"


class ExecutionError(RuntimeError):
    """TensorRT refused the engine, a shape, a buffer or a run; the message says what to do."""


class Level(enum.IntEnum):
    """How serious a message of TensorRT is."""

    ERROR = 0
    WARNING = 1
    DETAIL = 2


def make_logger(trt: Any, hear: Callable[[Level, str], None]) -> Any:
    """An ``ILogger`` of `trt` that hands every message to `hear`. Keep it as long as what was made with it."""
    severity_type = trt.ILogger.Severity
    levels = {
        severity_type.INTERNAL_ERROR: Level.ERROR,
        severity_type.ERROR: Level.ERROR,
        severity_type.WARNING: Level.WARNING,
    }

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            hear(levels.get(severity, Level.DETAIL), msg)

    return Logger()


class Loader:
    """Loads engines. One for a process: TensorRT takes no second logger while the first is in use."""

    def __init__(self, trt: Any) -> None:
        """Args: the module ``tensorrt`` or ``tensorrt_rtx``."""
        self.trt = trt
        self._errors: deque[str] = deque(maxlen=3)
        self._logger = make_logger(trt, self._hear)  # must outlive the runtime
        self.runtime = trt.Runtime(self._logger)

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
            plan: a serialised engine with one input and the output ``output``.
            max_batch: largest batch that will be run.
            sizes: (height, width) of the inputs that will be run.
            kernel_cache: TensorRT for RTX: file that keeps compiled kernels, read now and written by `warm_up`.

        Raises:
            ExecutionError: the engine does not load here, or is not one of nudenet_trt.
            CudaError: out of memory.
        """
        self._loader, self._trt, self._cuda, self._kernel_cache = loader, loader.trt, cuda, kernel_cache
        self._engine = loader.load(plan)
        self._input, self.dtype = self._check_tensors()
        is_rtx = hasattr(self._trt, "CudaGraphStrategy")
        self._context = self._rtx_context() if is_rtx else self._engine.create_execution_context()
        if self._context is None:
            raise self._error("the engine has no room to run; free the GPU (nvidia-smi)")
        self._shape: tuple[int, ...] = ()
        with ExitStack() as stack:
            self.stream = cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking)
            stack.callback(cuda.cudaStreamDestroy, self.stream)
            page_lock = PageLock(cuda)
            self.batches: dict[tuple[int, int], Batch] = {}
            for height, width in sizes:
                shape = (max_batch, 3, height, width)
                output_shape = self._set_shape(shape)
                batch = Batch(cuda, page_lock, self.stream, shape, output_shape, self.dtype)
                stack.callback(batch.close)
                self.batches[height, width] = batch
            self._memory = stack.pop_all()

    def _error(self, what: str) -> ExecutionError:
        return ExecutionError(f"{what}:\n{self._loader.last_errors()}")

    def _check_tensors(self) -> tuple[str, Any]:
        """Name and type of the input."""
        trt, engine = self._trt, self._engine
        types = {trt.DataType.FLOAT: np.dtype(np.float32), trt.DataType.UINT8: np.dtype(np.uint8)}
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        found = {name: engine.get_tensor_dtype(name) for name in names}
        if len(inputs) != 1 or sorted(names) != sorted([*inputs, OUTPUT]) or found[OUTPUT] != trt.DataType.FLOAT:
            raise ExecutionError(
                f"the engine has tensors {found} with inputs {inputs}, expected one input and the FP32 output "
                f"'{OUTPUT}'; build it from this project's ONNX graph"
            )
        if found[inputs[0]] not in types:
            raise ExecutionError(f"the engine's input is {found[inputs[0]]}, expected FP32 or UINT8; build it again")
        return inputs[0], types[found[inputs[0]]]

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
        """Tell the context the input's shape; returns the output's."""
        if not self._context.set_input_shape(self._input, shape):
            raise self._error(f"the engine refuses input {list(shape)}; build it again")
        missing = self._context.infer_shapes()
        if missing:
            raise ExecutionError(f"the engine wants shapes for {missing} too; build it from this project's ONNX graph")
        found = tuple(self._context.get_tensor_shape(OUTPUT))
        if len(found) != 3 or found[0] != shape[0] or found[2] != 6:
            raise ExecutionError(
                f"the engine's output is {list(found)}, expected [{shape[0]},candidates,6]; build it again"
            )
        return found

    def _prepare(self, shape: tuple[int, ...]) -> None:
        """Set shape and addresses; nothing where the last run had the same."""
        if shape == self._shape:
            return
        self._set_shape(shape)
        batch = self.batches[shape[2], shape[3]]
        for name, address in ((self._input, batch.input_address), (OUTPUT, batch.output_address)):
            if not self._context.set_tensor_address(name, address):
                raise self._error(f"the engine refuses a buffer for {name}; build it again")
        self._shape = shape

    def replay(self, count: int, size: tuple[int, int]) -> None:
        """Start a run of `count` pictures of `size` (height, width) on what lies in their input."""
        self._prepare((count, 3, *size))
        if not self._context.execute_async_v3(int(self.stream)):
            raise self._error("the engine did not run; build it again on this GPU")

    def infer(self, parts: Sequence[np.ndarray | GpuTensor]) -> np.ndarray:
        """Run the parts as one batch.

        Args:
            parts: [n_i,3,height,width] each, of the engine's type and of one size.

        Returns:
            FP32 [sum n_i,candidates,6]; valid until the next call for the same size.
        """
        first: Any = parts[0]
        size = tuple(first.shape[2:])
        batch = self.batches[size]
        count = batch.send(parts)
        self.replay(count, size)
        return batch.fetch(count)

    def warm_up(self, max_batch: int) -> None:
        """Run every batch size of every input size twice, so that kernels are compiled and captured; keep the kernels.

        Raises:
            ExecutionError: a run failed.
            OSError: the kernels could not be written; the next start compiles them again.
        """
        for size in self.batches:
            for count in range(1, max_batch + 1):
                for _ in range(2):
                    self.replay(count, size)
        self._cuda.cudaStreamSynchronize(self.stream)
        if self._kernel_cache is not None:
            kernels = bytes(self._cache.serialize())
            if kernels != self._known:
                _write(self._kernel_cache, kernels)

    def close(self) -> None:
        """Free buffers and stream; the context goes before them."""
        self._context = None
        self._memory.close()


def _write(path: Path, content: bytes) -> None:
    """As a whole or not at all: several instances may do it at the same time."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
