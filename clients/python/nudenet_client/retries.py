"""How often a request is tried again, and how long it has. What is tried again: `ServerUnavailable` of errors.py."""

from __future__ import annotations

import random
import time

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0


class Attempts:
    """The time one request has, tries included: `left` seconds, and the `pause` before the next try."""

    def __init__(self, deadline: float, retries: int) -> None:
        self._end = time.monotonic() + deadline
        self._retries = retries
        self._made = 0

    @property
    def left(self) -> float:
        """Seconds until the deadline, never zero or less: that would mean no deadline to gRPC."""
        return max(self._end - time.monotonic(), 0.001)

    def pause(self) -> float | None:
        """Seconds to wait before the next try, doubling with jitter; None: give up."""
        pause = min(_FIRST_PAUSE * 2**self._made, _LONGEST_PAUSE) * random.uniform(0.5, 1.0)
        self._made += 1
        return pause if self._made <= self._retries and pause < self._end - time.monotonic() else None
