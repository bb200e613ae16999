"""Back-pressure from the detector to the decoder. Both Python steps use this file; one is a link to the other.

Triton's ensembles have none: a decoder that is faster than its detector decodes frames that the detector's queue will
drop. So a decoder takes no new requests while enough are under way behind it, and what cannot be served waits, or is
refused, in nudenet_preprocess's own bounded queue, undecoded and by priority.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import random
import time
from typing import Any

import server_files
from lane import LIVE

# Somewhere in between: Triton overlooks a decoder that becomes free, for half a second, when all become free at once.
POLL_SECONDS = (0.0002, 0.003)
# What fails in the detector never reaches the end. When nothing has moved for so long, it is forgotten.
STALE_SECONDS = 1.0
PUBLISH_SECONDS = 1.0

_CELLS = 8192  # of 8 bytes: 0: cells given out, 1: what the gauge shows, then one for each process
_FIRST = 2


class Gate:
    """How many pictures are between decoding and the end of postprocessing, over all processes of a lane.

    Each process counts in a cell of its own in shared memory, so that nobody locks or asks anybody: asking the server
    for a metric takes 60 us. The gauge ``nudenet_in_flight{lane}`` follows once a second, and when nothing is left.

    Args:
        pb_utils: Triton's module; where it has no metrics, there is no gauge.
        limit: `wait` waits while so many are under way; 0 never waits.
        lane: each lane of a server has its own gate.
        server: process id of the server; the parent of a Python model.
    """

    def __init__(self, pb_utils: Any, limit: int = 0, lane: str = LIVE, server: int | None = None) -> None:
        self.limit = limit
        self._cells, self._own = _claim(server, lane)
        self._gauge = None
        self._next = 0.0
        kind = getattr(pb_utils, "MetricFamily", None)
        if kind:
            description = "Pictures between decoding and the end of postprocessing"
            self._family = kind(name="nudenet_in_flight", description=description, kind=kind.GAUGE)
            self._gauge = self._family.Metric(labels={"lane": lane})

    def in_flight(self) -> int:
        """Pictures under way."""
        seen = None
        while True:  # a reader that is interrupted between two cells would count what never was
            before, seen = seen, self._cells[_FIRST : self._cells[0]].tolist()
            if seen == before:
                return sum(seen)

    def enter(self, pictures: int) -> None:
        """Count `pictures` in."""
        self._cells[self._own] += pictures
        self._publish()

    def leave(self, pictures: int) -> None:
        """Count `pictures` out: answered, or failed before the detector."""
        self._cells[self._own] -= pictures
        self._publish()

    def wait(self) -> None:
        """Wait for room."""
        if not self.limit:
            return
        seen, since = self.in_flight(), time.monotonic()
        if seen < 0:  # some that were forgotten did come back
            self._cells[self._own] -= seen
        while seen >= self.limit:
            time.sleep(random.uniform(*POLL_SECONDS))
            now = self.in_flight()
            if now != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > STALE_SECONDS:
                self._cells[self._own] -= seen
                return

    def _publish(self) -> None:
        if self._gauge is None:
            return
        now, value = time.monotonic(), self.in_flight()
        if now >= self._next or (value == 0 and self._cells[1] != 0):
            self._next = now + PUBLISH_SECONDS
            self._cells[1] = value
            self._gauge.set(value)


def _claim(server: int | None, lane: str) -> tuple[memoryview, int]:
    """The cells of this lane's processes, and the index of a new one."""
    path = server_files.path("gate", lane, server)
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(_CELLS * 8)
        cells = memoryview(mmap.mmap(file.fileno(), _CELLS * 8)).cast("q")
        own = max(_FIRST, cells[0])
        if own < _CELLS:
            cells[0] = own + 1
        fcntl.flock(file, fcntl.LOCK_UN)  # the mapping keeps a copy of the descriptor, and with it the lock
    if own == _CELLS:
        raise RuntimeError(f"{path}: {_CELLS} instances have been loaded since the server started; restart it")
    return cells, own
