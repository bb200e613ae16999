"""Candidates to detections: threshold, class-agnostic non-maximum suppression, source pixels. Pure numpy and OpenCV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from reprlib import repr as quoted  # shortened: gRPC drops errors of more than 8 kB

import cv2
import numpy as np

from nudenet_steps.serving.failures import RequestError

MAX_DETECTIONS = 1000
ELSEWHERE = ("on_error", "policy", "encoding")  # request parameters that other modules and steps read
# Suppression takes time with the square of its candidates, so only the best enter it. On the pictures of
# build/accuracy.py no detection changes from a confidence threshold of 0.001 upwards (docs/accuracy.md).
TOP_K = 300
_SCALES, _LIMITS = [0, 1, 0, 1], [2, 3, 2, 3]  # of a box's coordinates, in geometry
_EQUAL = np.ones(TOP_K, np.float32)


class ParameterError(RequestError):
    """A request parameter that is unknown or out of range; the message says what is accepted."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "parameters")


@dataclass(frozen=True)
class Settings:
    """How candidates become detections; the defaults are NudeNet's."""

    confidence_threshold: float = 0.25
    iou_threshold: float = 0.45
    max_detections: int = 100
    classes: frozenset[int] | None = field(default=None)  # class ids; None keeps all


def _number(name: str, value: object, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ParameterError(f"{name} must be a number in [{low:g},{high:g}], got {quoted(value)}")
    try:
        number = float(value)
    except ValueError:
        raise ParameterError(f"{name} must be a number in [{low:g},{high:g}], got {quoted(value)}") from None
    if not low <= number <= high:
        raise ParameterError(f"{name} must be in [{low:g},{high:g}], got {number:g}")
    return number


def parse_settings(
    parameters: Mapping[str, object], labels: Sequence[str], elsewhere: Sequence[str] = ELSEWHERE
) -> Settings:
    """Validate request parameters.

    Args:
        parameters: the request's parameters; numbers may come as text.
        labels: all class names; the index is the class id.
        elsewhere: names that are read elsewhere.

    Raises:
        ParameterError: unknown name, wrong type or out of range.
    """
    values: dict = {}
    for name, value in parameters.items():
        if name in ("confidence_threshold", "iou_threshold"):
            values[name] = _number(name, value, 0, 1)
        elif name == "max_detections":
            number = _number(name, value, 1, MAX_DETECTIONS)
            if number != int(number):
                raise ParameterError(f"max_detections must be a whole number, got {number:g}")
            values[name] = int(number)
        elif name == "classes":
            wanted = [label.strip() for label in str(value).split(",") if label.strip()]
            unknown = [label for label in wanted if label not in labels]
            if unknown or not wanted:
                raise ParameterError(
                    f"classes must be comma-separated label names, got {quoted(unknown[0] if unknown else value)}; "
                    f"known: {', '.join(labels)}"
                )
            values[name] = frozenset(labels.index(label) for label in wanted)
        elif name not in elsewhere:
            known = ("confidence_threshold", "iou_threshold", "max_detections", "classes", *elsewhere)
            raise ParameterError(f"unknown parameter {quoted(name)}; known: {', '.join(known)}")
    return Settings(**values)


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
    # After suppression, so that it never changes a box.
    if settings.classes is not None:
        found = found[np.isin(found[:, 4].astype(np.int64), list(settings.classes))]
    return found[: settings.max_detections]
