"""Engines that stand in for the TensorRT plan behind the same tensors. No Triton import: usable and testable alone.

An engine takes FP32 [n,3,height,width] and answers FP32 [n,candidates,6] for any n up to its largest batch.
Every batch size is compiled and run once before the first request.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

PRECISIONS = ("auto", "FP32", "BF16", "INT8")


class EngineError(RuntimeError):
    """The engine cannot be built as asked; the message says what to do."""


class OpenVinoEngine:
    """OpenVINO on the CPU. One picture gets all cores; of several, each core takes its share.

    Threads that work on one picture wait for each other after every layer, so pictures side by side are a fifth faster.
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
        has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision == "BF16" and not has_bf16:
            raise EngineError("this CPU has no BF16 instructions: use precision auto or FP32")
        # What INT8 leaves unquantised gains from BF16 too; the box decode stays FP32 by the graph's design.
        hint = "bf16" if has_bf16 and precision != "FP32" else "f32"
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

        single = compiled(1, 1)
        self._input = np.zeros((max_batch, *single.input(0).shape[1:]), np.float32)
        self._output = np.zeros((max_batch, *single.output(0).shape[1:]), np.float32)
        models = {(1, 1): single}
        # By number of pictures: requests that are bound to their slices, and where those end.
        self._plans: dict[int, list[tuple[openvino.InferRequest, int]]] = {}
        for count in range(1, max_batch + 1):
            self._plans[count] = []
            for start, end in shares(count, threads):
                key = (end - start, streams_for(count, threads))
                models[key] = models.get(key) or compiled(*key)
                request = models[key].create_infer_request()
                request.set_input_tensor(openvino.Tensor(self._input[start:end], shared_memory=True))
                request.set_output_tensor(openvino.Tensor(self._output[start:end], shared_memory=True))
                self._plans[count].append((request, end))
            self.infer([self._input[:count]])

    take = staticmethod(np.from_dlpack)  # a view of the memory of Triton's tensor; its as_numpy is a copy

    def infer(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Run the parts as one batch.

        Args:
            parts: FP32 [n_i,3,height,width] each.

        Returns:
            FP32 [sum n_i,candidates,6]; valid until the next call.
        """
        count, filled, remaining = sum(len(part) for part in parts), 0, iter(parts)
        for request, end in self._plans[count]:
            while filled < end:
                part = next(remaining)
                self._input[filled : filled + len(part)] = part
                filled += len(part)
            request.start_async()  # while the next share is copied
        for request, _ in self._plans[count]:
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
