"""Run a TensorRT engine: batches of FP32 tensors in and out, and the time the GPU takes for them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from nudenet_build.trt import session
from nudenet_build.trt.builder import INPUT, OUTPUT
from nudenet_build.trt.cuda_device import Buffers
from nudenet_build.trt.session import Log, TensorRTError

WARM_UP_RUNS = 20


class EngineRunner:
    """One engine with one execution context. Make it with `open_engine`."""

    def __init__(self, context: Any, buffers: Buffers, log: Log) -> None:
        self._context = context
        self._buffers = buffers
        self._log = log
        self._rows = 0

    def _prepare(self, count: int) -> None:
        """Tell the context the batch size."""
        if count == self._rows:
            return
        shape = (count, *self._buffers.host[INPUT].shape[1:])
        if not self._context.set_input_shape(INPUT, shape):
            raise TensorRTError(f"the engine refuses input {list(shape)}:\n{self._log.last_errors()}\nBuild it again")
        missing = self._context.infer_shapes()
        if missing:
            raise TensorRTError(f"the engine wants shapes for {missing} too; build it from this project's ONNX graph")
        found = tuple(self._context.get_tensor_shape(OUTPUT))
        expected = (count, *self._buffers.host[OUTPUT].shape[1:])
        if found != expected:
            raise TensorRTError(f"the engine's output is {list(found)}, expected {list(expected)}; build it again")
        self._rows = count

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(int(self._buffers.stream)):
            raise TensorRTError(f"the engine did not run:\n{self._log.last_errors()}\nBuild it again on this GPU")

    def infer(self, batch: np.ndarray) -> np.ndarray:
        """Candidates of a batch.

        Args:
            batch: FP32 [B,3,height,width], RGB in [0,1], B within the engine's profile.

        Returns:
            FP32 [B,candidates,6], a copy.
        """
        count = len(batch)
        self._prepare(count)
        self._buffers.host[INPUT][:count] = batch
        self._buffers.upload(INPUT, count)
        self._enqueue()
        self._buffers.download(OUTPUT, count)
        self._buffers.wait()
        return self._buffers.host[OUTPUT][:count].copy()

    def latencies_ms(self, batch: np.ndarray, runs: int) -> np.ndarray:
        """Milliseconds on the GPU for each of `runs` executions of `batch`, without the copies, after warming up."""
        self.infer(batch)
        for _ in range(WARM_UP_RUNS):
            self._enqueue()
        self._buffers.wait()
        times = np.empty(runs)
        for i in range(runs):
            self._buffers.mark(0)
            self._enqueue()
            self._buffers.mark(1)
            times[i] = self._buffers.elapsed_ms()
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
def open_engine(trt: Any, runtime: Any, plan: bytes, max_batch: int) -> Iterator[EngineRunner]:
    """Load `plan` on the current GPU, ready to run; everything is freed at the end.

    Args:
        trt: the module from `session.load`.
        runtime: the module from `cuda_device.load`.
        plan: a serialised engine.
        max_batch: largest batch that will be run.

    Raises:
        TensorRTError: the plan does not load here, or is not a plan of nudenet_trt.
        cuda_device.CudaError: out of memory.
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
    with Buffers(runtime, shapes) as buffers:
        for name in shapes:
            if not context.set_tensor_address(name, buffers.address(name)):
                raise TensorRTError(f"the engine refuses a buffer for {name}:\n{log.last_errors()}\nBuild it again")
        yield EngineRunner(context, buffers, log)
