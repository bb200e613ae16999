"""What every transport shares: request parameters, tensors in, detections out, and when to try again."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import numpy as np

from .detections import Detections
from .pictures import upright_size

MODEL = "nudenet"
MAX_BATCH = 8
OUTPUTS = ("detections", "num_detections", "labels", "error")
OnError = Literal["fail", "report"]

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0


@dataclass(frozen=True)
class Parameters:
    """What a request may ask for; None leaves the server's default.

    Attributes:
        confidence_threshold: least confidence, in [0,1]; the server's default is 0.25.
        iou_threshold: overlap in [0,1] above which the weaker box is dropped; 0.45.
        max_detections: per picture, best first; 100.
        classes: label names to keep, as a list or comma-separated; all.
        priority: 1 is the most urgent level; 0 is the server's default. Counts only where the server has levels.
    """

    confidence_threshold: float | None = None
    iou_threshold: float | None = None
    max_detections: int | None = None
    classes: str | Iterable[str] | None = None
    priority: int = 0

    def to_triton(self) -> dict[str, str | int | float]:
        """The request parameters as they travel."""
        # A refused picture must not cost its neighbours in the batch their answers, so it is always reported;
        # the clients raise where their caller wants that.
        values: dict[str, str | int | float] = {"on_error": "report"}
        # As text, which every front end of Triton passes on unchanged.
        for name in ("confidence_threshold", "iou_threshold", "max_detections"):
            value = getattr(self, name)
            if value is not None:
                values[name] = str(value)
        if self.classes is not None:
            values["classes"] = self.classes if isinstance(self.classes, str) else ",".join(self.classes)
        return values


def tensors(module: ModuleType, files: Sequence[bytes]) -> tuple[list[Any], list[Any]]:
    """Inputs and requested outputs of one request in the types of `module`: tritonclient.grpc or tritonclient.http."""
    array = np.empty((len(files), 1), np.object_)
    array[:, 0] = files
    image = module.InferInput("image", list(array.shape), "BYTES")
    image.set_data_from_numpy(array)
    return [image], [module.InferRequestedOutput(name) for name in OUTPUTS]


def detections(result: Any, files: Sequence[bytes]) -> list[Detections]:
    """The answer of one request, a picture each; refused ones have their `error` set."""
    rows, labels = result.as_numpy("detections"), result.as_numpy("labels")
    counts, errors = result.as_numpy("num_detections"), result.as_numpy("error")
    answers = []
    for i, data in enumerate(files):
        count, size = int(counts[i, 0]), upright_size(data)
        if count < 0:
            answers.append(Detections.failed(errors[i, 0].decode(), size))
        else:
            answers.append(Detections.from_rows(rows[i, :count], [name.decode() for name in labels[i, :count]], size))
    return answers


class Attempts:
    """The time one request has, tries included: `left` seconds, and the `pause` before the next try."""

    def __init__(self, deadline: float, retries: int) -> None:
        self._end = time.monotonic() + deadline
        self._retries = retries
        self._made = 0

    @property
    def left(self) -> float:
        """Seconds until the deadline, never zero or less: that would mean no deadline to gRPC."""
        return max(self._end - time.monotonic(), 0.001)

    def pause(self) -> float | None:
        """Seconds to wait before the next try, doubling with jitter; None: give up."""
        pause = min(_FIRST_PAUSE * 2**self._made, _LONGEST_PAUSE) * random.uniform(0.5, 1.0)
        self._made += 1
        return pause if self._made <= self._retries and pause < self._end - time.monotonic() else None
