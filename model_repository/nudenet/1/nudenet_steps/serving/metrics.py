"""Counters of our own beside Triton's in /metrics."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeAlias

Families: TypeAlias = Mapping[str, tuple[str, tuple[str, ...]]]  # metric -> description, names of its labels

FLUSH_SECONDS = 1.0
BATCHES, BATCH_PICTURES = "nudenet_batches_total", "nudenet_batch_pictures_total"
# Of the detector: Triton's own counters are of executions, in which several canvases may meet.
BATCH_METRICS: Families = {
    BATCHES: ("Batches that the detector ran", ("canvas",)),
    BATCH_PICTURES: ("Pictures in the batches that the detector ran", ("canvas",)),
}


class Counters:
    """Totals that are handed to Triton at most once a second.

    Updating a metric asks the server and waits: 20 to 90 us each, as much as a whole postprocessing step.
    Adding here costs a dictionary entry. So /metrics lags by a second, on a quiet server until the next request.
    """

    def __init__(self, pb_utils: Any, families: Families) -> None:
        """Register the families; instances, and models that count the same, share them.

        Args:
            pb_utils: Triton's module; where it has no metrics, nothing is counted.
            families: what will be counted.
        """
        kind: Any = getattr(pb_utils, "MetricFamily", None)
        self._families: dict[str, Any] = {
            name: (kind(name=name, description=description, kind=kind.COUNTER), labels)
            for name, (description, labels) in (families.items() if kind else ())
        }
        self._metrics: dict[tuple[str, ...], Any] = {}
        self._pending: Counter[tuple[str, ...]] = Counter()
        self._next = 0.0

    def add(self, name: str, value: float = 1, *labels: str) -> None:
        """Count `value` on `name`, under one value for each of the family's labels."""
        self._pending[(name, *labels)] += value  # type: ignore[assignment]  # seconds are no whole numbers

    def flush(self) -> None:
        """Hand over what has been counted, if a second has passed since the last time."""
        now = time.monotonic()
        if now < self._next or not self._families:
            return
        self._next = now + FLUSH_SECONDS
        for key, value in self._pending.items():
            if key not in self._metrics:
                family, names = self._families[key[0]]
                self._metrics[key] = family.Metric(labels=dict(zip(names, key[1:], strict=True)))
            self._metrics[key].increment(value)
        self._pending.clear()
