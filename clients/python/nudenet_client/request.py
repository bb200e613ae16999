"""What every transport shares: request parameters, tensors in, detections out."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Literal

import numpy as np
from tritonclient.utils import InferenceServerException

from .detections import Detections
from .errors import ClientError
from .pictures import upright_size

MODEL = "nudenet"
MAX_BATCH = 8
OUTPUTS = ("detections", "num_detections", "labels", "error")
POLICY_OUTPUTS = ("verdict", "reasons")
OnError = Literal["fail", "report"]

# A busy server answers what has waited nearly as long as it may, and the rest of the way takes time, too. So a request
# asks to be refused from a queue after this share of the time that is left: a late answer only costs others theirs.
QUEUE_SHARE = 1 / 3


@dataclass(frozen=True)
class Parameters:
    """What a request may ask for; None leaves the server's default.

    Attributes:
        confidence_threshold: least confidence, in [0,1]; the server's default is 0.25.
        iou_threshold: overlap in [0,1] above which the weaker box is dropped; 0.45.
        max_detections: per picture, best first; 100.
        classes: label names to keep, as a list or comma-separated; all.
        policy: judge each picture by this policy of the server, see `Detections.verdict`; ``default`` for the one that
            the server's file names. None: no verdict.
        priority: 1 is the most urgent level; 0 is the server's default. Counts only where the server has levels.
    """

    confidence_threshold: float | None = None
    iou_threshold: float | None = None
    max_detections: int | None = None
    classes: str | Iterable[str] | None = None
    priority: int = 0
    policy: str | None = None

    def __post_init__(self) -> None:
        if self.classes is not None and not isinstance(self.classes, str):
            object.__setattr__(self, "classes", tuple(self.classes))  # may be an iterator; requests are many

    def failed(self, reason: str, size: tuple[int, int] = (0, 0)) -> Detections:
        """The answer for a picture that was refused; where a verdict was asked for, it is ``error``."""
        return Detections.failed(reason, size, verdict="" if self.policy is None else "error")

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
        if self.policy is not None:
            values["policy"] = self.policy
        return values


def tensors(module: ModuleType, files: Sequence[bytes], parameters: Parameters) -> tuple[list[Any], list[Any]]:
    """Inputs and requested outputs of one request in the types of `module`: tritonclient.grpc or tritonclient.http."""
    array = np.empty((len(files), 1), np.object_)
    array[:, 0] = files
    image = module.InferInput("image", list(array.shape), "BYTES")
    image.set_data_from_numpy(array)
    wanted = OUTPUTS if parameters.policy is None else (*OUTPUTS, *POLICY_OUTPUTS)
    return [image], [module.InferRequestedOutput(name) for name in wanted]


@contextlib.contextmanager
def reading(url: str) -> Iterator[None]:
    """Around what reads an answer: whatever is wrong with it becomes a `ClientError` that names the server."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError, struct.error, InferenceServerException) as error:
        raise ClientError(f"{url}: not an answer of nudenet: {error}") from error


def detections(result: Any, files: Sequence[bytes], parameters: Parameters) -> list[Detections]:
    """The answer of one request, a picture each; refused ones have their `error` set. Within `reading`.

    Raises:
        ValueError: an output is missing, or of another type or shape; `reading` makes it an error of the client.
    """
    rows = _output(result, "detections", "f", (len(files), None, 6))
    counts = _output(result, "num_detections", "i", (len(files), 1))
    labels = _output(result, "labels", "O", (len(files), rows.shape[1]))
    errors = _output(result, "error", "O", (len(files), 1))
    if counts.min() < -1 or counts.max() > rows.shape[1]:
        raise ValueError(f"num_detections {counts[:, 0].tolist()} beside {rows.shape[1]} rows a picture")
    judged = parameters.policy is not None
    verdicts, reasons = (_output(result, name, "O", (len(files), 1)) if judged else None for name in POLICY_OUTPUTS)
    answers = []
    for i, data in enumerate(files):
        count, size = int(counts[i, 0]), upright_size(data)
        if count < 0:
            answer = parameters.failed(errors[i, 0].decode(), size)
        else:
            answer = Detections.from_rows(rows[i, :count], [name.decode() for name in labels[i, :count]], size)
        if verdicts is not None and reasons is not None:
            answer = replace(answer, verdict=verdicts[i, 0].decode(), reasons=json.loads(reasons[i, 0] or b"{}"))
        answers.append(answer)
    return answers


def _output(result: Any, name: str, kind: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """The output `name`, of numpy's `kind` and of `shape`, where None is any length."""
    array = result.as_numpy(name)
    if array is None:
        raise ValueError(f"there is no {name}")
    fits = len(array.shape) == len(shape) and all(b in (None, a) for a, b in zip(array.shape, shape))
    if not fits or (array.size and array.dtype.kind != kind):  # tritonclient makes no texts numbers
        wanted = ",".join("K" if length is None else str(length) for length in shape)
        raise ValueError(f"{name} is {array.dtype} {list(array.shape)}, expected [{wanted}]")
    return np.asarray(array)


def queue_timeout_us(seconds: float) -> int:
    """Microseconds that a request with `seconds` to its deadline may wait in one of the server's queues."""
    return max(1, int(seconds * QUEUE_SHARE * 1e6))  # 0 would mean the server's own limit
