"""ONNX Runtime on the CPU: the reference that all other engines, and every converted graph, are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nudenet_steps.engines import EngineError


class OnnxRuntimeEngine:
    """Any graph with the detector's tensors; FP32 unless the graph itself says otherwise."""

    def __init__(self, folder: Path, max_batch: int = 8, precision: str = "FP32", threads: int = 0) -> None:
        """Load ``model.onnx`` of `folder`.

        Args:
            folder: holds model.onnx.
            max_batch: not used; the graph takes any batch.
            precision: FP32; auto is FP32.
            threads: CPU threads; 0 uses all cores.

        Raises:
            EngineError: another precision, or no model.onnx.
        """
        if precision not in ("auto", "FP32"):
            raise EngineError(f"precision must be auto or FP32, got {precision!r}")
        if not (folder / "model.onnx").is_file():
            raise EngineError(f"{folder / 'model.onnx'} is missing: run python build/export_onnx.py")
        self._load(folder / "model.onnx", threads)

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
    def shape(self) -> tuple[int, int, int]:
        """(3, height, width) of the input."""
        return tuple(self._session.get_inputs()[0].shape[1:])

    take = staticmethod(np.from_dlpack)  # a view of the memory of Triton's tensor; its as_numpy is a copy

    def infer(self, parts: Sequence[np.ndarray], alone: bool = True) -> np.ndarray:
        """FP32 [n_i,3,height,width] each to FP32 [sum n_i,candidates,6]; `alone` makes no difference."""
        batch = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return self._session.run(None, {"input": batch})[0]
