"""What was found in one picture."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

import numpy as np

if TYPE_CHECKING:
    import supervision


@dataclass(frozen=True)
class Detection:
    """One find: `box` is x1, y1, x2, y2 in pixels of the upright picture, `confidence` lies in [0,1]."""

    label: str
    class_id: int
    confidence: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Detections(Sequence[Detection]):
    """What was found in one picture, best first.

    Attributes:
        boxes: FP32 [K,4]: x1, y1, x2, y2 in pixels of the upright picture, clipped to it.
        confidences: FP32 [K] in [0,1].
        class_ids: INT64 [K].
        labels: class names, K of them.
        width, height: of the upright picture in pixels; 0 where it is unreadable.
        error: why the picture was refused; None where it was not.
        verdict: with `Parameters.policy`: ``allow``, ``review``, ``block``, or ``error`` for a picture that was refused
            or could not be judged; else empty.
        reasons: with it, the server's: ``policy``, its ``version``, ``policy_sha256``, ``network_sha256`` and
            ``findings``, a list with ``class``, ``verdict``, ``confidence``, ``threshold``, ``area`` and ``box``.
    """

    boxes: np.ndarray
    confidences: np.ndarray
    class_ids: np.ndarray
    labels: tuple[str, ...]
    width: int
    height: int
    error: str | None = None
    verdict: str = ""
    reasons: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_rows(cls, rows: np.ndarray, labels: Sequence[str], size: tuple[int, int]) -> Detections:
        """From the server's rows FP32 [K,6]: x1, y1, x2, y2, class id, confidence."""
        return cls(rows[:, :4], rows[:, 5], rows[:, 4].astype(np.int64), tuple(labels), *size)

    @classmethod
    def failed(cls, reason: str, size: tuple[int, int] = (0, 0), verdict: str = "") -> Detections:
        """For a picture that was refused."""
        empty = np.zeros((0, 6), np.float32)
        return cls(empty[:, :4], empty[:, 5], np.zeros(0, np.int64), (), *size, reason or "no reason given", verdict)

    def __len__(self) -> int:
        return len(self.labels)

    @overload
    def __getitem__(self, index: int) -> Detection: ...
    @overload
    def __getitem__(self, index: slice) -> list[Detection]: ...
    def __getitem__(self, index: int | slice) -> Detection | list[Detection]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        x1, y1, x2, y2 = self.boxes[index].tolist()
        return Detection(
            self.labels[index], int(self.class_ids[index]), float(self.confidences[index]), (x1, y1, x2, y2)
        )

    def __iter__(self) -> Iterator[Detection]:
        return (self[i] for i in range(len(self)))

    def only(self, labels: Collection[str]) -> Detections:
        """Those whose label is in `labels`. The verdict stays: it is about the picture."""
        kept = [i for i, label in enumerate(self.labels) if label in labels]
        return Detections(
            self.boxes[kept],
            self.confidences[kept],
            self.class_ids[kept],
            tuple(self.labels[i] for i in kept),
            self.width,
            self.height,
            self.error,
            self.verdict,
            self.reasons,
        )

    def to_supervision(self) -> supervision.Detections:
        """As supervision's detections, class names under ``data["class_name"]``."""
        import supervision

        return supervision.Detections(
            xyxy=self.boxes,
            confidence=self.confidences,
            class_id=self.class_ids,
            data={"class_name": np.array(self.labels, dtype=np.str_)},
        )

    def to_dict(self, image: str) -> dict[str, Any]:
        """For JSON; `image` names the picture. A refused one has `error` in place of size and detections.

        With a policy `verdict` and `reasons` follow.
        """
        judged = {"verdict": self.verdict, "reasons": dict(self.reasons)} if self.verdict else {}
        if self.error is not None:
            return {"image": image, "error": self.error} | judged
        return {
            "image": image,
            "width": self.width,
            "height": self.height,
            "detections": [
                {"label": d.label, "class_id": d.class_id, "confidence": d.confidence, "box": list(d.box)} for d in self
            ],
        } | judged

    def to_json(self, image: str) -> str:
        """`to_dict` as one line of JSON; numbers are exactly the server's."""
        line = json.dumps(self.to_dict(image), ensure_ascii=False)
        try:
            line.encode()
        except UnicodeEncodeError:  # a file name that is not UTF-8: as escapes it can be written, and read back
            return json.dumps(self.to_dict(image))
        return line
