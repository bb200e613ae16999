"""Counters of our own beside Triton's in /metrics."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from nudenet_steps.serving import package

FLUSH_SECONDS = 1.0


class Counters:
    """Totals that are handed to Triton at most once a second.

    Updating a metric asks the server and waits: 20 to 90 us each, as much as a whole postprocessing step.
    Adding here costs a dictionary entry. So /metrics lags by a second, on a quiet server until the next request.
    """

    def __init__(self, pb_utils: Any, families: Mapping[str, tuple[str, str | None]]) -> None:
        """Register the families; instances of one model share them.

        Args:
            pb_utils: Triton's module; where it has no metrics, nothing is counted.
            families: metric name -> (description, name of its one label or None).
        """
        kind: Any = getattr(pb_utils, "MetricFamily", None)
        self._families: dict[str, Any] = {
            name: (kind(name=name, description=description, kind=kind.COUNTER), label)
            for name, (description, label) in (families.items() if kind else ())
        }
        self._metrics: dict[tuple[str, str], Any] = {}
        self._pending: Counter[tuple[str, str]] = Counter()
        self._next = 0.0
        self._package = package.publish(pb_utils)

    def add(self, name: str, value: float = 1, label: str = "") -> None:
        """Count `value` on `name`, under `label` where the family has one."""
        self._pending[name, label] += value  # type: ignore[assignment]  # seconds are no whole numbers

    def flush(self) -> None:
        """Hand over what has been counted, if a second has passed since the last time."""
        now = time.monotonic()
        if now < self._next or not self._families:
            return
        self._next = now + FLUSH_SECONDS
        for (name, label), value in self._pending.items():
            if (name, label) not in self._metrics:
                family, label_name = self._families[name]
                self._metrics[name, label] = family.Metric(labels={label_name: label} if label_name else {})
            self._metrics[name, label].increment(value)
        self._pending.clear()
