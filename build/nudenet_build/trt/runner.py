"""Run an engine for ``--test``: batches in and out, and the time the GPU takes for them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nudenet_build.trt.cuda_device import Stopwatch
from nudenet_steps.cuda.execution import Execution, Loader
from nudenet_steps.preprocess.letterbox import TO_UNIT

WARM_UP_RUNS = 20


class EngineRunner:
    """One engine with one execution context. Make it with `open_engine`."""

    def __init__(self, execution: Execution, cuda: Any) -> None:
        self._execution, self._cuda = execution, cuda

    def infer(self, batch: np.ndarray) -> np.ndarray:
        """Candidates of a batch.

        Args:
            batch: FP32 [B,3,height,width], RGB in [0,1], B within the engine's profile.

        Returns:
            FP32 [B,candidates,6], a copy.
        """
        return self._execution.infer([self._as_sent(batch)]).copy()

    def _as_sent(self, batch: np.ndarray) -> np.ndarray:
        """As preprocessing sends it to this engine: the pixels themselves, if it takes them."""
        return np.rint(batch / TO_UNIT).astype(np.uint8) if np.dtype(np.uint8) in self._execution.inputs else batch

    def latencies_ms(self, batch: np.ndarray, runs: int) -> np.ndarray:
        """Milliseconds on the GPU for each of `runs` executions of `batch`, without the copies, after warming up."""
        self.infer(batch)
        count, _, height, width = batch.shape
        size = (height, width)
        for _ in range(WARM_UP_RUNS):
            self._execution.replay(count, size)
        self._cuda.cudaStreamSynchronize(self._execution.stream)
        times = np.empty(runs)
        with Stopwatch(self._cuda, self._execution.stream) as watch:
            for i in range(runs):
                watch.mark(0)
                self._execution.replay(count, size)
                watch.mark(1)
                times[i] = watch.elapsed_ms()
        return times


@contextlib.contextmanager
def open_engine(
    trt: Any, cuda: Any, plan: bytes, max_batch: int, sizes: Sequence[tuple[int, int]]
) -> Iterator[EngineRunner]:
    """Load `plan` on the current GPU, ready to run pictures of these `sizes`; everything is freed at the end.

    Args:
        trt: the module from `session.load`.
        cuda: see `nudenet_steps.cuda.runtime.load`.
        plan: a serialised engine.
        max_batch: largest batch that will be run.
        sizes: height and width of each.

    Raises:
        ExecutionError: the plan does not load here, or is not a plan of nudenet_trt.
        CudaError: out of memory.
    """
    execution = Execution(Loader(trt), cuda, plan, max_batch, sizes)
    with contextlib.closing(execution):
        yield EngineRunner(execution, cuda)
