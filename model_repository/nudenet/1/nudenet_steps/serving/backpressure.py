"""Back-pressure from the end of the pipeline to the decoder.

Triton's ensembles have none: a decoder that is faster than the detector fills the detector's queue with decoded
pictures, without bound. So a decoder takes no new requests while enough pictures are under way behind it. What cannot
be served waits, or is refused, in the queue of nudenet_preprocess, undecoded and by priority.

Not every picture that is decoded comes out: its client gives up, a step fails, a process dies, and nobody tells.
So each picture carries the time when it was decoded (tensor `decoded_at`) to the end, and is counted under that time.
One that later pictures have overtaken by far, or that is long overdue, is lost and counts no more. That needs nothing
from the step in between, which may be a plan.
"""

from __future__ import annotations

import random
import time
from typing import Any

from nudenet_steps.serving.process_counts import SharedTable

# Random, for Triton overlooks a decoder that becomes free, for half a second, when all become free at once.
POLL_SECONDS = (0.0002, 0.003)
PUBLISH_NS = 10**9

# Time is cut into slots. A cell holds the slot's number and, above _ZERO, this process's count of it.
_SLOT_BITS = 25  # 34 ms
_SLOTS = 128  # 4.3 s
_COUNT_BITS = 16
_ZERO = 1 << (_COUNT_BITS - 1)
# Pictures come out nearly in the order in which they are decoded. One is lost when others that were decoded later by
# a mean way through the pipeline are out, or after a few such ways.
_OVERTAKEN_NS = 50_000_000  # at least
_OVERDUE_NS, _OVERDUE_WAYS = 200_000_000, 3
# Where the way takes longer than this, fewer pictures may be under way, so that clients with short deadlines get
# answers from a slow detector, too: the way then takes the geometric mean of this and of what the limit alone makes it.
_LONG_WAY_NS = 125_000_000
_NEWEST, _WAY, _SHOWN = range(3)  # common numbers: newest decoded_at that came out, mean way in ns, the gauge


class Backpressure:
    """How many pictures are between decoding and the end of postprocessing, over all processes of a server.

    Args:
        pb_utils: Triton's module; where it has metrics, the gauge ``nudenet_in_flight`` follows once a second.
        limit: most that may be under way for `is_full` and `wait`, fewer where their way takes long, see _LONG_WAY_NS;
            those who only count leave it out.
        server: process id of the server; the one that started this Python model.
    """

    def __init__(self, pb_utils: Any, limit: int = 0, server: int | None = None) -> None:
        self.limit = limit
        self._table = SharedTable("inflight", _SLOTS, server)
        self._gauge, self._next = None, 0
        kind = getattr(pb_utils, "MetricFamily", None)
        if kind:
            description = "Pictures between decoding and the end of postprocessing"
            self._family = kind(name="nudenet_in_flight", description=description, kind=kind.GAUGE)
            self._gauge = self._family.Metric(labels={})

    def in_flight(self) -> int:
        """Pictures under way, without those that are lost."""
        common, rows, now = self._table.common, self._table.rows(), time.monotonic_ns()
        way = common[_WAY]
        oldest = max(common[_NEWEST] - max(_OVERTAKEN_NS, way), now - max(_OVERDUE_NS, _OVERDUE_WAYS * way))
        newest, total = now >> _SLOT_BITS, 0
        # What is older than all slots cannot be told from a turn before.
        for slot in range(max(oldest >> _SLOT_BITS, newest - _SLOTS + 1), newest + 1):
            column, first = slot % _SLOTS, slot << _COUNT_BITS
            counts = [cell - first - _ZERO for row in rows if (cell := row[column]) >= first]
            total += max(sum(counts), 0)
        return total

    def enter(self, pictures: int) -> int:
        """Count in `pictures` that are decoded.

        Returns:
            their `decoded_at`: ns of the monotonic clock, which all processes share.
        """
        now = time.monotonic_ns()
        self._add(now, pictures)
        return now

    def leave(self, decoded_at: int, pictures: int) -> None:
        """Count out `pictures` that have come to the end."""
        common, way = self._table.common, time.monotonic_ns() - decoded_at
        if not 0 <= way < (_SLOTS - 1) << _SLOT_BITS:  # of a client that calls postprocessing itself, or very late
            return
        self._add(decoded_at, -pictures)
        # Several processes may write these at once and lose an update: no matter.
        common[_NEWEST] = max(common[_NEWEST], decoded_at)
        common[_WAY] += (way - common[_WAY]) >> 3

    def withdraw(self, decoded_at: int, pictures: int) -> None:
        """Count out `pictures` that do not go on to the detector; they have overtaken nobody."""
        self._add(decoded_at, -pictures)

    def is_full(self) -> bool:
        """Whether there is no room for more pictures."""
        way = self._table.common[_WAY]
        return self.in_flight() * max(way, _LONG_WAY_NS) >= self.limit * _LONG_WAY_NS

    def wait(self) -> None:
        """Wait for room."""
        while self.is_full():
            time.sleep(random.uniform(*POLL_SECONDS))

    def publish(self) -> None:
        """Let the gauge follow, at the end of an execution."""
        if self._gauge is None:
            return
        now = time.monotonic_ns()
        if now < self._next and self._table.common[_SHOWN] == 0:
            return
        value = self.in_flight()
        if now >= self._next or value == 0:
            self._next = now + PUBLISH_NS
            self._table.common[_SHOWN] = value
            self._gauge.set(value)

    def _add(self, decoded_at: int, count: int) -> None:
        own, slot = self._table.own, decoded_at >> _SLOT_BITS
        cell = own[slot % _SLOTS]
        if cell >> _COUNT_BITS != slot:  # of a turn before
            cell = (slot << _COUNT_BITS) + _ZERO
        own[slot % _SLOTS] = cell + count
