"""Back-pressure from the detector to the decoder. Both Python steps use this file; one is a link to the other.

Triton's ensembles have none: a decoder that is faster than its detector decodes frames that the detector's queue will
drop. So a decoder takes no new requests while enough are under way behind it, and what cannot be served waits, or is
refused, in nudenet_preprocess's own bounded queue, undecoded and by priority.
"""

from __future__ import annotations

import random
import time
from typing import Any

from lane import LIVE
from tally import Tally

# Somewhere in between: Triton overlooks a decoder that becomes free, for half a second, when all become free at once.
POLL_SECONDS = (0.0002, 0.003)
# What fails in the detector never reaches the end. When nothing has moved for so long, it is forgotten.
STALE_SECONDS = 1.0
PUBLISH_SECONDS = 1.0


class Gate:
    """How many pictures are between decoding and the end of postprocessing, over all processes of a lane.

    Counted in shared memory, since asking the server for a metric takes 60 us. The gauge ``nudenet_in_flight{lane}``
    follows once a second, and when nothing is left.

    Args:
        pb_utils: Triton's module; where it has no metrics, there is no gauge.
        limit: `wait` waits while so many are under way; 0 never waits.
        lane: each lane of a server has its own gate.
        server: process id of the server; the parent of a Python model.
    """

    def __init__(self, pb_utils: Any, limit: int = 0, lane: str = LIVE, server: int | None = None) -> None:
        self.limit = limit
        self._tally = Tally("gate", lane, server)
        self._gauge = None
        self._next = 0.0
        kind = getattr(pb_utils, "MetricFamily", None)
        if kind:
            description = "Pictures between decoding and the end of postprocessing"
            self._family = kind(name="nudenet_in_flight", description=description, kind=kind.GAUGE)
            self._gauge = self._family.Metric(labels={"lane": lane})

    def in_flight(self) -> int:
        """Pictures under way."""
        return self._tally.total()

    def enter(self, pictures: int) -> None:
        """Count `pictures` in."""
        self._tally.add(pictures)
        self._publish()

    def leave(self, pictures: int) -> None:
        """Count `pictures` out: answered, or failed before the detector."""
        self._tally.add(-pictures)
        self._publish()

    def wait(self) -> None:
        """Wait for room."""
        if not self.limit:
            return
        seen, since = self.in_flight(), time.monotonic()
        if seen < 0:  # some that were forgotten did come back
            self._tally.add(-seen)
        while seen >= self.limit:
            time.sleep(random.uniform(*POLL_SECONDS))
            now = self.in_flight()
            if now != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > STALE_SECONDS:
                self._tally.add(-seen)
                return

    def _publish(self) -> None:
        if self._gauge is None:
            return
        now, value = time.monotonic(), self.in_flight()
        if now >= self._next or (value == 0 and self._tally.note != 0):
            self._next = now + PUBLISH_SECONDS
            self._tally.note = value  # what the gauge shows
            self._gauge.set(value)
