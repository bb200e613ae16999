"""Back-pressure from the detector to the decoder. Both Python steps use this file; one is a link to the other.

Triton's ensembles have none: a decoder that is faster than its detector decodes frames that the detector's queue will
drop. So decoding waits while enough requests are under way behind it, and what cannot be served waits, or is refused,
in nudenet_preprocess's own bounded queue, undecoded and by priority.
"""

from __future__ import annotations

import time
from typing import Any

POLL_SECONDS = 0.002
# Requests that fail in the detector never reach the end. When nothing has moved for so long, they are forgotten.
STALE_SECONDS = 1.0


class Gate:
    """How many requests are between decoding and the end of postprocessing: the gauge ``nudenet_in_flight``.

    Args:
        pb_utils: Triton's module; where it has no metrics, the gate is always open.
        limit: `enter` waits while so many are under way; 0 never waits.
    """

    def __init__(self, pb_utils: Any, limit: int = 0) -> None:
        self._limit = limit
        kind = getattr(pb_utils, "MetricFamily", None)
        self._gauge = None
        if kind:
            description = "Requests between decoding and the end of postprocessing"
            self._family = kind(name="nudenet_in_flight", description=description, kind=kind.GAUGE)
            self._gauge = self._family.Metric(labels={})

    def enter(self, requests: int) -> None:
        """Wait for room, then count `requests` in."""
        if self._gauge is None:
            return
        if self._limit:
            self._wait()
        self._gauge.increment(requests)

    def leave(self, requests: int) -> None:
        """Count `requests` out: answered, or failed before the detector."""
        if self._gauge is not None and requests:
            self._gauge.increment(-requests)

    def _wait(self) -> None:
        assert self._gauge is not None
        seen, since = self._gauge.value(), time.monotonic()
        if seen < 0:  # some that were forgotten did come back
            self._gauge.increment(-seen)
        while seen >= self._limit:
            time.sleep(POLL_SECONDS)
            now = self._gauge.value()
            if now != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > STALE_SECONDS:
                self._gauge.increment(-seen)
                return
