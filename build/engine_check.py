"""Does an engine find what ONNX Runtime finds with the FP32 graph? Detections after NMS, on real pictures.

A plan can be wrong without an error (TensorRT's own tracker has open cases), so numbers are compared, not assumed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import serving

THRESHOLD = 0.25  # the served default
MATCHING_IOU = 0.5
SUFFIXES = {".jpg", ".jpeg"}


class CheckError(RuntimeError):
    """There is nothing to compare with; the message says what is missing."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a precision may cost. Confidences within `margin` of the threshold may fall on either side of it."""

    f1: float
    mean_iou: float
    confidence_change: float
    margin: float


LIMITS = {
    "FP32": Limits(f1=0.99, mean_iou=0.99, confidence_change=0.005, margin=0.005),
    "FP16": Limits(f1=0.99, mean_iou=0.97, confidence_change=0.05, margin=0.02),
    "INT8+FP16": Limits(f1=0.95, mean_iou=0.85, confidence_change=0.25, margin=0.05),
}


@dataclasses.dataclass
class Agreement:
    """Detections of an engine against the reference, counted over pictures and batch sizes."""

    pictures: int = 0
    matched: int = 0
    missed: int = 0
    extra: int = 0
    iou_sum: float = 0.0
    confidence_change: float = 0.0  # the largest

    @property
    def f1(self) -> float:
        """2 matched / (2 matched + missed + extra); 1 where nothing was there to find."""
        total = 2 * self.matched + self.missed + self.extra
        return 2 * self.matched / total if total else 1.0

    @property
    def mean_iou(self) -> float:
        """Mean IoU of the matched boxes; 1 where there are none."""
        return self.iou_sum / self.matched if self.matched else 1.0

    def faults(self, limits: Limits) -> list[str]:
        """What is worse than `limits` allow, in words; empty where the engine agrees."""
        faults = []
        if self.f1 < limits.f1:
            faults.append(f"F1 {self.f1:.4f} < {limits.f1} ({self.missed} missed, {self.extra} extra)")
        if self.mean_iou < limits.mean_iou:
            faults.append(f"mean IoU {self.mean_iou:.4f} < {limits.mean_iou}")
        if self.confidence_change > limits.confidence_change:
            faults.append(f"confidence changed by {self.confidence_change:.4f} > {limits.confidence_change}")
        return faults

    def summary(self) -> dict[str, float]:
        """The figures for the plan's passport."""
        return {
            "pictures": self.pictures,
            "matched": self.matched,
            "missed": self.missed,
            "extra": self.extra,
            "f1": round(self.f1, 4),
            "mean_iou": round(self.mean_iou, 4),
            "max_confidence_change": round(self.confidence_change, 4),
        }


def ious(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """IoU of `boxes` FP32 [N,4] with `box` FP32 [4] (x1, y1, x2, y2): FP32 [N]."""
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return shared / np.maximum(areas - shared, np.finfo(np.float32).tiny)


def add_picture(agreement: Agreement, reference: np.ndarray, found: np.ndarray, margin: float) -> None:
    """Count one picture.

    Args:
        reference, found: FP32 [K,6] from `serving.nms.detect` at `THRESHOLD` - `margin`, best first.
        margin: a detection below `THRESHOLD` counts only as the partner of one above.
    """
    agreement.pictures += 1
    free = np.ones(len(found), bool)
    for expected in reference:
        overlap = ious(found[:, :4], expected[:4]) if len(found) else np.zeros(0)
        overlap[~free | (found[:, 4] != expected[4])] = 0
        best = int(overlap.argmax()) if len(overlap) else -1
        if best < 0 or overlap[best] <= MATCHING_IOU:
            agreement.missed += bool(expected[5] >= THRESHOLD)
            continue
        free[best] = False
        if max(expected[5], found[best, 5]) >= THRESHOLD:
            agreement.matched += 1
            agreement.iou_sum += float(overlap[best])
            change = abs(float(expected[5]) - float(found[best, 5]))
            agreement.confidence_change = max(agreement.confidence_change, change)
    agreement.extra += int((free & (found[:, 5] >= THRESHOLD)).sum())


def load_pictures(folder: Path, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """All JPEG files of `folder`, preprocessed as the server does it.

    Returns:
        model inputs FP32 [N,3,height,width] and geometries FP32 [N,4] for `serving.nms.detect`.

    Raises:
        CheckError: no JPEG file there, or one that the server would refuse.
    """
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise CheckError(f"no JPEG files in {folder}; name a folder of pictures with --images")
    preprocess = serving.Preprocessor(height, width)
    inputs, geometries = [], []
    for path in paths:
        try:
            pixels, box = preprocess(path.read_bytes())
        except serving.jpeg.JpegError as error:
            raise CheckError(f"{path}: {error}; take it out of {folder}") from error
        inputs.append(pixels)
        geometries.append(box.geometry)
    return np.stack(inputs), np.asarray(geometries, np.float32)


def reference_candidates(onnx_path: Path, inputs: np.ndarray) -> np.ndarray:
    """Candidates FP32 [N,1260,6] of the FP32 graph in ONNX Runtime on the CPU."""
    session = onnxruntime.InferenceSession(onnx_path, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["output"], {"input": one[None]})[0] for one in inputs])


def compare(
    infer: Callable[[np.ndarray], np.ndarray],
    inputs: np.ndarray,
    geometries: np.ndarray,
    reference: np.ndarray,
    batches: Iterable[int],
    limits: Limits,
) -> Agreement:
    """Run every picture at every batch size and count.

    Args:
        infer: FP32 [B,3,H,W] -> candidates FP32 [B,N,6].
        inputs, geometries: from `load_pictures`.
        reference: from `reference_candidates`, for the same pictures.
        batches: batch sizes; batches larger than the number of pictures repeat them.

    Raises:
        CheckError: the reference finds nothing in these pictures, so agreement would mean nothing.
    """
    settings = serving.nms.Settings(confidence_threshold=THRESHOLD - limits.margin)

    def detections(candidates: np.ndarray, index: int) -> np.ndarray:
        return serving.nms.detect(candidates, geometries[index], settings)

    expected = [detections(candidates, i) for i, candidates in enumerate(reference)]
    if not any((found[:, 5] >= THRESHOLD).any() for found in expected):
        raise CheckError("the reference detects nothing in these pictures; name others with --images")
    agreement = Agreement()
    for batch in batches:
        for start in range(0, len(inputs), batch):
            rows = [(start + i) % len(inputs) for i in range(batch)]
            for row, candidates in zip(rows, infer(inputs[rows]), strict=True):
                add_picture(agreement, expected[row], detections(candidates, row), limits.margin)
    return agreement


def median_and_p99(times: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Median and 99th percentile of `times`, in their unit."""
    median, p99 = np.percentile(times, (50, 99))
    return float(median), float(p99)
