"""Candidates to detections: threshold, class-agnostic non-maximum suppression, source pixels. Pure numpy and OpenCV."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

# Suppression takes time with the square of its candidates, so only the best enter it. On the pictures of
# build/accuracy.py no detection changes from a confidence threshold of 0.001 upwards (docs/accuracy.md).
TOP_K = 300
_SCALES, _LIMITS = [0, 1, 0, 1], [2, 3, 2, 3]  # of a box's coordinates, in geometry
_EQUAL = np.ones(TOP_K, np.float32)


@dataclass(frozen=True)
class Settings:
    """How candidates become detections; the defaults are NudeNet's."""

    confidence_threshold: float = 0.25
    iou_threshold: float = 0.45
    max_detections: int = 100
    classes: frozenset[int] | None = field(default=None)  # class ids; None keeps all


def detect(candidates: np.ndarray, geometry: np.ndarray, settings: Settings) -> np.ndarray:
    """Detections of one picture.

    Args:
        candidates: FP32 [N,6]: x1, y1, x2, y2 in model pixels, class id, confidence.
        geometry: FP32 [4]: x scale, y scale (source per model pixel), source width, source height.
        settings: thresholds; `classes` filters after suppression, so it never changes a box.

    Returns:
        FP32 [K,6]: x1, y1, x2, y2 in source pixels, clipped, class id, confidence; best first.
    """
    found = candidates[candidates[:, 5] >= settings.confidence_threshold]
    if not len(found):
        return found
    boxes = found[:, :4]  # `found` is a copy: boolean indexing
    boxes *= geometry[_SCALES]
    np.maximum(boxes, 0, out=boxes)
    np.minimum(boxes, geometry[_LIMITS], out=boxes)
    sizes = boxes[:, 2:] - boxes[:, :2]
    inside = (sizes > 0).all(axis=1)  # what lay wholly in the padding has no area left; NaN is dropped too
    if not inside.all():
        found, sizes = found[inside], sizes[inside]
        if not len(found):
            return found
    order = np.argsort(-found[:, 5], kind="stable")[:TOP_K]
    found = found[order]
    rectangles = np.concatenate([found[:, :2], sizes[order]], axis=1)
    scores = _EQUAL[: len(found)]  # they are in order already
    kept = cv2.dnn.NMSBoxes(rectangles, scores, 0, settings.iou_threshold)  # type: ignore[arg-type]
    found = found[kept]
    if settings.classes is not None:
        found = found[np.isin(found[:, 4].astype(np.int64), list(settings.classes))]
    return found[: settings.max_detections]
