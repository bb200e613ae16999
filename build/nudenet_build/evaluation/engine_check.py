"""Does an engine find what ONNX Runtime finds with the FP32 graph? Detections after NMS, on real pictures.

A plan can be wrong without an error (TensorRT's own tracker has open cases), so numbers are compared, not assumed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from nudenet_build.evaluation.matching import Agreement
from nudenet_build.evaluation.variants import variants
from nudenet_steps.engines.onnxruntime_cpu import OnnxRuntimeEngine
from nudenet_steps.pipeline import Preprocessor
from nudenet_steps.postprocess import nms
from nudenet_steps.preprocess import jpeg
from nudenet_steps.preprocess.canvas import Canvas
from nudenet_steps.preprocess.letterbox import TO_UNIT
from nudenet_steps.suffixes import JPEG_SUFFIXES

ENOUGH_PICTURES = 240  # fewer are filled up with seeded variants of themselves


class CheckError(RuntimeError):
    """There is nothing to compare with; the message says what is missing."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a precision may cost at the served thresholds."""

    f1: float
    mean_iou: float
    confidence_change: float


LIMITS = {
    "FP32": Limits(f1=0.99, mean_iou=0.99, confidence_change=0.005),
    "FP16": Limits(f1=0.99, mean_iou=0.97, confidence_change=0.05),
    "INT8+FP16": Limits(f1=0.95, mean_iou=0.85, confidence_change=0.3),
}


def faults(agreement: Agreement, limits: Limits) -> list[str]:
    """What is worse than `limits` allow, in words; empty where the engine agrees. NaN never agrees."""
    found = []
    if not agreement.f1 >= limits.f1:
        found.append(f"F1 {agreement.f1:.4f} < {limits.f1} ({agreement.missed} missed, {agreement.extra} extra)")
    if not agreement.mean_iou >= limits.mean_iou:
        found.append(f"mean IoU {agreement.mean_iou:.4f} < {limits.mean_iou}")
    if not agreement.max_confidence_change <= limits.confidence_change:
        found.append(f"a confidence changed by {agreement.max_confidence_change:.4f} > {limits.confidence_change}")
    return found


def load_pictures(folder: Path, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """All JPEG files of `folder`, preprocessed as the server does it, with variants where they are few.

    Returns:
        model inputs FP32 [N,3,height,width] and geometries FP32 [N,4] for `nms.detect`.

    Raises:
        CheckError: no JPEG file there, or one that the server would refuse.
    """
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in JPEG_SUFFIXES)
    if not paths:
        raise CheckError(f"no JPEG files in {folder}; name a folder of pictures with --images")
    preprocess = Preprocessor((Canvas(height, width),))
    extra = max(0, -(-ENOUGH_PICTURES // len(paths)) - 1)
    inputs, geometries = [], []
    for path in paths:
        data = path.read_bytes()
        try:
            for picture in (data, *(variant for _, variant in variants(data, path.name, extra))):
                pixels, box = preprocess(picture)
                inputs.append(pixels * TO_UNIT)
                geometries.append(box.geometry)
        except jpeg.JpegError as error:
            raise CheckError(f"{path}: {error}; take it out of {folder}") from error
    return np.stack(inputs), np.asarray(geometries, np.float32)


def reference_candidates(onnx_path: Path, inputs: np.ndarray) -> np.ndarray:
    """Candidates FP32 [N,candidates,6] of the FP32 graph in ONNX Runtime on the CPU."""
    engine = OnnxRuntimeEngine.from_graph(onnx_path)
    return np.concatenate([engine.infer([one[None]]) for one in inputs])


def compare(
    infer: Callable[[np.ndarray], np.ndarray],
    inputs: np.ndarray,
    geometries: np.ndarray,
    reference: np.ndarray,
    batches: Iterable[int],
) -> Agreement:
    """Run every picture at every batch size and count what differs after NMS at the served thresholds.

    Args:
        infer: FP32 [B,3,H,W] -> candidates FP32 [B,N,6].
        inputs, geometries: from `load_pictures`.
        reference: from `reference_candidates`, for the same pictures.
        batches: batch sizes; batches larger than the number of pictures repeat them.

    Raises:
        CheckError: the reference finds nothing in these pictures, so agreement would mean nothing.
    """
    settings = nms.Settings()

    def detections(candidates: np.ndarray, index: int) -> np.ndarray:
        return nms.detect(candidates, geometries[index], settings)

    expected = [detections(candidates, i) for i, candidates in enumerate(reference)]
    if not any(len(found) for found in expected):
        raise CheckError("the reference detects nothing in these pictures; name others with --images")
    agreement = Agreement()
    for batch in batches:
        for start in range(0, len(inputs), batch):
            # The shift puts a picture at another place in the batch at each batch size.
            rows = [(start + batch - 1 + i) % len(inputs) for i in range(batch)]
            for row, candidates in zip(rows, infer(inputs[rows]), strict=True):
                agreement.add(expected[row], detections(candidates, row))
    return agreement


def median_and_p99(times: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Median and 99th percentile of `times`, in their unit."""
    median, p99 = np.percentile(times, (50, 99))
    return float(median), float(p99)
