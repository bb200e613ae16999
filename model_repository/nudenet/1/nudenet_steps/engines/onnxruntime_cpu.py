"""ONNX Runtime on the CPU: the reference that all other engines, and every converted graph, are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nudenet_steps.engines import EngineError
from nudenet_steps.preprocess.canvas import CANVASES, Canvas
from nudenet_steps.preprocess.letterbox import TO_UNIT


class OnnxRuntimeEngine:
    """Any graph with the detector's FP32 `input`; FP32 unless the graph itself says otherwise."""

    reason = ""  # no choice of precision

    def __init__(
        self,
        folder: Path,
        max_batch: int = 8,
        precision: str = "FP32",
        threads: int = 0,
        canvases: Sequence[Canvas] = CANVASES,
    ) -> None:
        """Load ``model.dynamic.onnx`` of `folder`.

        Args:
            folder: holds model.dynamic.onnx.
            max_batch: not used; the graph takes any batch.
            precision: FP32; auto is FP32.
            threads: CPU threads; 0 uses all cores.
            canvases: not used; the graph takes any.

        Raises:
            EngineError: another precision, or no model.dynamic.onnx.
        """
        if precision not in ("auto", "FP32"):
            raise EngineError(f"precision must be auto or FP32, got {precision!r}")
        path = folder / "model.dynamic.onnx"
        if not path.is_file():
            raise EngineError(f"{path} is missing: run python build/export_onnx.py")
        self._load(path, threads)

    @classmethod
    def from_graph(cls, graph: Path | bytes, threads: int = 0) -> OnnxRuntimeEngine:
        """An engine for the ONNX file `graph`, or for its content."""
        engine = cls.__new__(cls)
        engine._load(graph, threads)
        return engine

    def _load(self, graph: Path | bytes, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Sessions side by side must not burn each other's cores while they wait.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        source = graph if isinstance(graph, bytes) else str(graph)
        self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        self.name = f"ONNX Runtime {onnxruntime.__version__}"
        self.precision = "FP32"

    @property
    def canvases(self) -> tuple[Canvas, ...]:
        """What the graph takes: its own size, or all canvases where that is open."""
        _, _, height, width = self._session.get_inputs()[0].shape
        return (Canvas(height, width),) if isinstance(height, int) else CANVASES

    take = staticmethod(np.from_dlpack)  # a view of the memory of Triton's tensor; its as_numpy is a copy

    def infer(self, parts: Sequence[np.ndarray], alone: bool = True) -> np.ndarray:
        """UINT8 or FP32 [n_i,3,height,width] each to FP32 [sum n_i,candidates,6]; `alone` makes no difference."""
        batch = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return self._session.run(None, {"input": batch * TO_UNIT if batch.dtype == np.uint8 else batch})[0]
