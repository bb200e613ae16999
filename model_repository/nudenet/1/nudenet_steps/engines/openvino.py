"""OpenVINO on the CPU, the engine of configs/cpu.pbtxt. No Triton import: usable and testable alone.

Every batch size is compiled and run once before the first request.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nudenet_steps.engines import EngineError

PRECISIONS = ("auto", "FP32", "BF16", "INT8")


def has_bf16() -> bool:
    """Whether this CPU multiplies BF16 natively, as OpenVINO sees it."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class _Plan(NamedTuple):
    """How one number of pictures is worked on."""

    requests: list[tuple[Any, int]]  # of OpenVINO, each bound to its share of the buffers; where that ends
    at_once: int


class OpenVinoEngine:
    """OpenVINO on the CPU. One picture gets all cores; of several, each core takes its share.

    Threads that work on one picture wait for each other after every layer, so pictures side by side are a fifth faster.
    For the same reason, of two engines at work each had better take half of the cores.
    """

    def __init__(self, folder: Path, max_batch: int, precision: str = "auto", threads: int = 0) -> None:
        """Compile and warm up.

        Args:
            folder: holds model.onnx, and model.int8.onnx for precision INT8.
            max_batch: largest number of pictures in one call.
            precision: one of `PRECISIONS`; auto is BF16 convolutions where the CPU has them, else FP32.
            threads: CPU threads; 0 uses all cores.

        Raises:
            EngineError: unknown precision, missing file, or BF16 on a CPU without it.
        """
        import openvino

        if precision not in PRECISIONS:
            raise EngineError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
        path = folder / ("model.int8.onnx" if precision == "INT8" else "model.onnx")
        if not path.is_file():
            script = "precision.py --precision INT8" if precision == "INT8" else "export_onnx.py"
            raise EngineError(f"{path} is missing: run python build/{script}")
        core = openvino.Core()
        native = has_bf16()
        if precision == "BF16" and not native:
            raise EngineError("this CPU has no BF16 instructions: use precision auto or FP32")
        # What INT8 leaves unquantised gains from BF16 too; the box decode stays FP32 by the graph's design.
        hint = "bf16" if native and precision != "FP32" else "f32"
        self.name = f"OpenVINO {openvino.__version__.split('-')[0]}"
        self.precision = precision if precision != "auto" else {"bf16": "BF16", "f32": "FP32"}[hint]
        threads = threads or len(os.sched_getaffinity(0))

        def compiled(size: int, streams: int) -> openvino.CompiledModel:
            model = core.read_model(path)  # static shapes are faster than dynamic ones and never recompile
            model.reshape([size, *(dimension.get_length() for dimension in list(model.input(0).partial_shape)[1:])])
            options = {
                "INFERENCE_PRECISION_HINT": hint,
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": streams,
                "ENABLE_CPU_PINNING": False,  # several instances would be pinned to the same cores
            }
            return core.compile_model(model, "CPU", options)

        models = {(1, 1): compiled(1, 1)}
        self._input = np.zeros((max_batch, *models[1, 1].input(0).shape[1:]), np.float32)
        self._output = np.zeros((max_batch, *models[1, 1].output(0).shape[1:]), np.float32)

        def bound(start: int, end: int, streams: int) -> tuple[openvino.InferRequest, int]:
            """A request for these pictures of the buffers, and where they end."""
            key = (end - start, streams)
            models[key] = models.get(key) or compiled(*key)
            request = models[key].create_infer_request()
            request.set_input_tensor(openvino.Tensor(self._input[start:end], shared_memory=True))
            request.set_output_tensor(openvino.Tensor(self._output[start:end], shared_memory=True))
            return request, end

        # By number of pictures, and whether nobody else is at work.
        self._plans: dict[tuple[int, bool], _Plan] = {}
        for count in range(1, max_batch + 1):
            streams = streams_for(count, threads)
            requests = [bound(*share, streams) for share in shares(count, threads)]
            self._plans[count, True] = self._plans[count, False] = _Plan(requests, len(requests))
            self.infer([self._input[:count]])
        half = threads // 2
        for count in range(1, max_batch + 1) if half else ():  # of one thread there is no half
            requests = self._plans[count, True].requests
            # A model of twice as many streams gives each half of the threads. Each that is compiled takes up to 60 MB.
            streams, halves = 2 * streams_for(count, half), shares(count, half)
            if count == 1 or all((end - start, streams) in models for start, end in halves):
                requests = [bound(*share, streams) for share in halves]
                self._plans[count, False] = _Plan(requests, len(requests))
            else:
                self._plans[count, False] = _Plan(requests, max(1, len(requests) // 2))
            self.infer([self._input[:count]], alone=False)

    take = staticmethod(np.from_dlpack)  # a view of the memory of Triton's tensor; its as_numpy is a copy

    def infer(self, parts: Sequence[np.ndarray], alone: bool = True) -> np.ndarray:
        """Run the parts as one batch.

        Args:
            parts: FP32 [n_i,3,height,width] each.
            alone: whether to use all threads; else half, since another engine is at work on the same cores.

        Returns:
            FP32 [sum n_i,candidates,6]; valid until the next call.
        """
        count, filled, remaining = sum(len(part) for part in parts), 0, iter(parts)
        requests, at_once = self._plans[count, alone]
        for i, (request, end) in enumerate(requests):
            while filled < end:
                part = next(remaining)
                self._input[filled : filled + len(part)] = part
                filled += len(part)
            if i >= at_once:
                requests[i - at_once][0].wait()
            request.start_async()  # while the next share is copied
        for request, _ in requests:
            request.wait()
        return self._output[:count]


def streams_for(pictures: int, threads: int) -> int:
    """How many groups of threads work side by side: a power of two, so that few models need compiling."""
    return 1 << (min(pictures, threads).bit_length() - 1)


def shares(pictures: int, threads: int) -> list[tuple[int, int]]:
    """Which pictures each group of threads takes, as [start, end): shares that differ by one at most."""
    streams = streams_for(pictures, threads)
    edges = [i * pictures // streams for i in range(streams + 1)]
    return list(itertools.pairwise(edges))
