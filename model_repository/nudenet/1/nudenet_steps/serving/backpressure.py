"""Back-pressure from the detector to the decoder.

Triton's ensembles have none: a decoder that is faster than its detector decodes frames that the detector's queue will
drop. So a decoder takes no new requests while enough are under way behind it, and what cannot be served waits, or is
refused, in nudenet_preprocess's own bounded queue, undecoded and by priority.

Not all that is decoded arrives at the end. A request whose client has gone away while it waited is decoded all the
same, since Triton does not tell; it ends in the detector's queue, and nobody tells either. So what is lost is
looked for here.
"""

from __future__ import annotations

import random
import time
from typing import Any

from nudenet_steps.serving.process_counts import ProcessCounts

# Somewhere in between: Triton overlooks a decoder that becomes free, for half a second, when all become free at once.
POLL_SECONDS = (0.0002, 0.003)
# A detector with nothing to do takes what waits for it within a few milliseconds; longer if the cores are busy.
LOST_SECONDS = 0.03
LOST_LOOKS = 8
# For what the detectors cannot tell, because they hang or are no Python models.
STALE_SECONDS = 1.0
PUBLISH_SECONDS = 1.0


class Backpressure:
    """How many pictures are between decoding and the end of postprocessing, over all processes of a server.

    Counted in shared memory, since asking the server for a metric takes 60 us. The gauge ``nudenet_in_flight``
    follows once a second, and when nothing is left.

    Args:
        pb_utils: Triton's module; where it has no metrics, there is no gauge.
        limit: `wait` waits while so many are under way; 0 never waits.
        server: process id of the server; the parent of a Python model.
    """

    def __init__(self, pb_utils: Any, limit: int = 0, server: int | None = None) -> None:
        self.limit = limit
        self._counts = ProcessCounts("inflight", server)
        self._hands = ProcessCounts("hands", server)  # which of them decoders and postprocessors are working on
        self._detectors = ProcessCounts("detectors", server, counts=False)  # and which ones each detector has
        self._least, self._looks, self._since = 0, 0, 0.0
        self._gauge = None
        self._next = 0.0
        kind = getattr(pb_utils, "MetricFamily", None)
        if kind:
            description = "Pictures between decoding and the end of postprocessing"
            self._family = kind(name="nudenet_in_flight", description=description, kind=kind.GAUGE)
            self._gauge = self._family.Metric(labels={})

    def in_flight(self) -> int:
        """Pictures under way."""
        return self._counts.total()

    def enter(self, pictures: int) -> None:
        """Count in `pictures` that are about to be decoded."""
        self._look_for_lost()
        self._counts.add(pictures)
        self._hands.add(pictures)
        self._publish()

    def hand_over(self, pictures: int) -> None:
        """They are decoded, and go to the detector."""
        self._hands.add(-pictures)

    def take(self, pictures: int) -> None:
        """They come from the detector."""
        self._hands.add(pictures)

    def leave(self, pictures: int) -> None:
        """Count `pictures` in hand out: answered, or failed before the detector."""
        self._hands.add(-pictures)
        self._counts.add(-pictures)
        self._publish()

    def wait(self) -> None:
        """Wait for room."""
        if not self.limit:
            return
        seen, since = self.in_flight(), time.monotonic()
        while seen >= self.limit:
            time.sleep(random.uniform(*POLL_SECONDS))
            self._look_for_lost()
            now = self.in_flight()
            if now != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > STALE_SECONDS:
                self._counts.add(-seen)
                return

    def _look_for_lost(self) -> None:
        """Forget what has been in nobody's hands all the time that some detector had nothing to do."""
        under_way = self.in_flight()
        if under_way < 0:  # some that were forgotten did come back
            self._counts.add(-under_way)
        if under_way <= 0 or all(at_work := self._detectors.counts()):
            self._looks = 0
            return
        unseen, now = under_way - sum(at_work) - self._hands.total(), time.monotonic()
        if self._looks == 0:
            self._least, self._since = unseen, now
        self._least = min(self._least, unseen)
        self._looks += 1
        if self._looks >= LOST_LOOKS and now - self._since >= LOST_SECONDS:
            self._counts.add(-max(0, self._least))
            self._looks = 0

    def _publish(self) -> None:
        if self._gauge is None:
            return
        now, value = time.monotonic(), max(0, self.in_flight())
        if now >= self._next or (value == 0 and self._counts.note != 0):
            self._next = now + PUBLISH_SECONDS
            self._counts.note = value  # what the gauge shows
            self._gauge.set(value)
