"""Run a TensorRT engine: batches of FP32 tensors in and out, and the time the GPU takes for them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from nudenet_build.trt import session
from nudenet_build.trt.builder import INPUT, OUTPUT
from nudenet_build.trt.cuda_device import Stopwatch
from nudenet_build.trt.session import Log, TensorRTError
from nudenet_steps.cuda.batch import Batch
from nudenet_steps.cuda.page_lock import PageLock

WARM_UP_RUNS = 20


class EngineRunner:
    """One engine with one execution context. Make it with `open_engine`."""

    def __init__(self, context: Any, cuda: Any, stream: Any, batch: Batch, log: Log) -> None:
        self._context = context
        self._cuda = cuda
        self._stream = stream
        self._batch = batch
        self._log = log
        self._rows = 0

    def _prepare(self, count: int) -> None:
        """Tell the context the batch size."""
        if count == self._rows:
            return
        shape = self._batch.input_shape(count)
        if not self._context.set_input_shape(INPUT, shape):
            raise TensorRTError(f"the engine refuses input {list(shape)}:\n{self._log.last_errors()}\nBuild it again")
        missing = self._context.infer_shapes()
        if missing:
            raise TensorRTError(f"the engine wants shapes for {missing} too; build it from this project's ONNX graph")
        found = tuple(self._context.get_tensor_shape(OUTPUT))
        expected = self._batch.output_shape(count)
        if found != expected:
            raise TensorRTError(f"the engine's output is {list(found)}, expected {list(expected)}; build it again")
        self._rows = count

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(int(self._stream)):
            raise TensorRTError(f"the engine did not run:\n{self._log.last_errors()}\nBuild it again on this GPU")

    def infer(self, batch: np.ndarray) -> np.ndarray:
        """Candidates of a batch.

        Args:
            batch: FP32 [B,3,height,width], RGB in [0,1], B within the engine's profile.

        Returns:
            FP32 [B,candidates,6], a copy.
        """
        self._prepare(len(batch))
        self._batch.send([batch])
        self._enqueue()
        return self._batch.fetch(len(batch)).copy()

    def latencies_ms(self, batch: np.ndarray, runs: int) -> np.ndarray:
        """Milliseconds on the GPU for each of `runs` executions of `batch`, without the copies, after warming up."""
        self.infer(batch)
        for _ in range(WARM_UP_RUNS):
            self._enqueue()
        self._cuda.cudaStreamSynchronize(self._stream)
        times = np.empty(runs)
        with Stopwatch(self._cuda, self._stream) as watch:
            for i in range(runs):
                watch.mark(0)
                self._enqueue()
                watch.mark(1)
                times[i] = watch.elapsed_ms()
        return times


def _check_tensors(trt: Any, engine: Any) -> None:
    """The engine must have exactly the tensors nudenet_trt serves, in FP32."""
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    wrong = [name for name in names if engine.get_tensor_dtype(name) != trt.DataType.FLOAT]
    if inputs != [INPUT] or sorted(names) != [INPUT, OUTPUT] or wrong:
        raise TensorRTError(
            f"the engine has tensors {names}, inputs {inputs}, not FP32: {wrong}; nudenet_trt serves FP32 "
            f"'{INPUT}' and '{OUTPUT}'; build it from this project's ONNX graph"
        )


@contextlib.contextmanager
def open_engine(trt: Any, cuda: Any, plan: bytes, max_batch: int) -> Iterator[EngineRunner]:
    """Load `plan` on the current GPU, ready to run; everything is freed at the end.

    Args:
        trt: the module from `session.load`.
        cuda: see `nudenet_steps.cuda.runtime.load`.
        plan: a serialised engine.
        max_batch: largest batch that will be run.

    Raises:
        TensorRTError: the plan does not load here, or is not a plan of nudenet_trt.
        CudaError: out of memory.
    """
    log = Log()
    logger = session.make_logger(trt, log)
    loader = trt.Runtime(logger)  # must outlive the engine
    engine = loader.deserialize_cuda_engine(plan)
    if engine is None:
        raise TensorRTError(
            f"TensorRT {trt.__version__} cannot load the plan:\n{log.last_errors()}\nBuild it with this TensorRT, "
            "on this kind of GPU"
        )
    _check_tensors(trt, engine)
    context = engine.create_execution_context()
    if context is None:
        raise TensorRTError(
            f"the engine has no room to run:\n{log.last_errors()}\nFree the GPU (nvidia-smi), or --workspace 1"
        )
    shapes = {name: (max_batch, *tuple(engine.get_tensor_shape(name))[1:]) for name in (INPUT, OUTPUT)}
    with contextlib.ExitStack() as stack:
        stream = cuda.cudaStreamCreate()
        stack.callback(cuda.cudaStreamDestroy, stream)
        batch = Batch(cuda, PageLock(cuda), stream, shapes[INPUT], shapes[OUTPUT])
        stack.callback(batch.close)
        for name, address in ((INPUT, batch.input_address), (OUTPUT, batch.output_address)):
            if not context.set_tensor_address(name, address):
                raise TensorRTError(f"the engine refuses a buffer for {name}:\n{log.last_errors()}\nBuild it again")
        yield EngineRunner(context, cuda, stream, batch, log)
