"""Engines that stand in for the TensorRT plan behind the same tensors. No Triton import: usable and testable alone.

An engine takes FP32 [n,3,height,width] and answers FP32 [n,candidates,6] for any n up to its largest batch.
Every batch size is compiled and run once before the first request.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

PRECISIONS = ("auto", "FP32", "BF16", "INT8")


class EngineError(RuntimeError):
    """The engine cannot be built as asked; the message says what to do."""


class OpenVinoEngine:
    """OpenVINO on the CPU, one compiled model per batch size (static shapes are faster and never recompile)."""

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
        options = {
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # several instances would be pinned to the same cores
        }
        self._requests = []
        for size in range(1, max_batch + 1):
            model = core.read_model(path)
            model.reshape([size, *(dimension.get_length() for dimension in list(model.input(0).partial_shape)[1:])])
            request = core.compile_model(model, "CPU", options).create_infer_request()
            request.infer()
            self._requests.append((request, request.get_input_tensor().data, request.get_output_tensor().data))

    def infer(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Run the parts as one batch.

        Args:
            parts: FP32 [n_i,3,height,width] each.

        Returns:
            FP32 [sum n_i,candidates,6]; valid until the next call.
        """
        request, tensor, output = self._requests[sum(len(part) for part in parts) - 1]
        np.concatenate(parts, out=tensor)
        request.infer()
        return output
