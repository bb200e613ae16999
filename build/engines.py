"""Engines to compare: functions from FP32 [n,3,H,W] to candidates FP32 [n,N,6]."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from serving import engine

Engine = Callable[[np.ndarray], np.ndarray]


class OnnxRuntime:
    """A graph on ONNX Runtime's CPU provider, the reference for all others."""

    def __init__(self, model: Path | bytes, threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # several sessions share the cores
        source = model if isinstance(model, bytes) else str(model)
        self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(3, height, width) of the input."""
        return tuple(self._session.get_inputs()[0].shape[1:])

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Candidates FP32 [n,N,6] of FP32 [n,3,H,W]."""
        return self._session.run(None, {"input": batch})[0]


def has_bf16() -> bool:
    """Whether this CPU multiplies BF16 natively, as OpenVINO sees it."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def openvino_engine(model: Path, precision: str) -> Engine:
    """The CPU engine that serves, one picture at a time (each batch size costs a compilation).

    Args:
        model: the graph; its name must be the one that `precision` serves.
        precision: see ``engine.PRECISIONS`` of nudenet_trt.
    """
    served = engine.OpenVinoEngine(model.parent, 1, precision)
    return lambda batch: np.concatenate([served.infer([picture[None]]).copy() for picture in batch])
