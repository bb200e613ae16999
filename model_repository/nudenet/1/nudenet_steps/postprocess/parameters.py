"""Request parameters that say how candidates become detections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from reprlib import repr as quoted  # shortened: gRPC drops errors of more than 8 kB

from nudenet_steps.postprocess.nms import Settings
from nudenet_steps.serving.failures import RequestError

MAX_DETECTIONS = 1000
ELSEWHERE = ("on_error", "policy", "encoding")  # request parameters that other modules and steps read


class ParameterError(RequestError):
    """A request parameter that is unknown or out of range; the message says what is accepted."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "parameters")


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
