"""Engines to compare: functions from UINT8 or FP32 [n,3,H,W] of one canvas to candidates FP32 [n,N,6]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from nudenet_steps.engines.onnxruntime_cpu import OnnxRuntimeEngine
from nudenet_steps.engines.openvino import OpenVinoEngine
from nudenet_steps.pipeline import labels
from nudenet_steps.preprocess.canvas import CANVASES, Canvas

Engine = Callable[[np.ndarray], np.ndarray]


class OnnxRuntime:
    """A graph on ONNX Runtime's CPU provider, the reference for all others."""

    def __init__(self, model: Path | bytes) -> None:
        self._engine = OnnxRuntimeEngine.from_graph(model)
        self.canvases = self._engine.canvases  # what the graph takes

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Candidates FP32 [n,N,6] of UINT8 or FP32 [n,3,H,W]."""
        return self._engine.infer([batch])


def openvino_engine(model: Path, precision: str, canvases: Sequence[Canvas] = CANVASES) -> Engine:
    """The CPU engine that serves, one picture at a time (each batch size costs a compilation).

    Args:
        model: the graph; its name must be the one that `precision` serves.
        precision: see ``PRECISIONS`` of nudenet_steps.engines.openvino.
        canvases: which are asked for.
    """
    served = OpenVinoEngine(model.parent, 1, precision, canvases=canvases)
    return lambda batch: np.concatenate([served.infer([picture[None]]).copy() for picture in batch])


def nudenet_detector() -> Callable[[np.ndarray], np.ndarray]:
    """NudeDetector of the nudenet package as a function from RGB uint8 [h,w,3] to detections [K,6].

    The package hands its network the channels in the order it got them, so it is given RGB here.
    """
    from nudenet import NudeDetector

    detector, names = NudeDetector(), labels()

    def detect(pixels: np.ndarray) -> np.ndarray:
        rows = [
            (x, y, x + w, y + h, names.index(found["class"]), found["score"])
            for found in detector.detect(pixels)
            for x, y, w, h in [found["box"]]
        ]
        return np.array(rows, np.float32).reshape(-1, 6)

    return detect
