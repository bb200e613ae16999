"""How two sets of detections of the same pictures differ."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

MATCH_IOU = 0.5


def pairwise_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union, [N,M], of boxes [N,4] and [M,4] (x1, y1, x2, y2)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    overlap = np.clip(high - low, 0, None).prod(axis=2)
    area_a, area_b = ((box[:, 2:] - box[:, :2]).prod(axis=1) for box in (a, b))
    union = area_a[:, None] + area_b[None] - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


@dataclass
class Agreement:
    """Counts and changes of tested detections against reference detections, added up over pictures."""

    matched: int = 0
    missed: int = 0
    extra: int = 0
    ious: list[float] = field(default_factory=list)
    confidence_changes: list[float] = field(default_factory=list)

    def add(self, reference: np.ndarray, tested: np.ndarray) -> None:
        """Match one picture's detections: same class, IoU above 0.5, best pair first.

        Args:
            reference, tested: [K,6] x1, y1, x2, y2, class id, confidence, in the same pixels.
        """
        iou = pairwise_iou(reference[:, :4], tested[:, :4])
        iou[reference[:, None, 4] != tested[None, :, 4]] = 0
        pairs = 0
        while iou.size and iou.max() > MATCH_IOU:
            i, j = np.unravel_index(iou.argmax(), iou.shape)
            self.ious.append(float(iou[i, j]))
            self.confidence_changes.append(float(abs(tested[j, 5] - reference[i, 5])))
            iou[i, :] = iou[:, j] = 0
            pairs += 1
        self.matched += pairs
        self.missed += len(reference) - pairs
        self.extra += len(tested) - pairs

    def join(self, other: Agreement) -> None:
        """Add what `other` counted."""
        self.matched += other.matched
        self.missed += other.missed
        self.extra += other.extra
        self.ious += other.ious
        self.confidence_changes += other.confidence_changes

    @property
    def reference(self) -> int:
        """Detections that the figures rest on."""
        return self.matched + self.missed

    @property
    def recall(self) -> float:
        """Part of the reference's detections that was found; nan without any."""
        return self.matched / self.reference if self.reference else float("nan")

    @property
    def f1(self) -> float:
        """2 matched / (2 matched + missed + extra); 1 where neither side found anything."""
        total = 2 * self.matched + self.missed + self.extra
        return 2 * self.matched / total if total else 1.0

    @property
    def mean_iou(self) -> float:
        """Over matched pairs; nan without any."""
        return float(np.mean(self.ious)) if self.ious else float("nan")

    @property
    def mean_confidence_change(self) -> float:
        """Mean absolute change over matched pairs; nan without any."""
        return float(np.mean(self.confidence_changes)) if self.confidence_changes else float("nan")

    @property
    def max_confidence_change(self) -> float:
        """Largest absolute change over matched pairs; nan without any."""
        return max(self.confidence_changes, default=float("nan"))

    def as_dict(self) -> dict[str, float]:
        """All figures, for JSON."""
        return {
            "matched": self.matched,
            "missed": self.missed,
            "extra": self.extra,
            "f1": self.f1,
            "mean_iou": self.mean_iou,
            "mean_confidence_change": self.mean_confidence_change,
            "max_confidence_change": self.max_confidence_change,
        }
