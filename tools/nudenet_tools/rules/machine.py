"""One rule over one stream: a state machine without clock, threads or files.

A frame is what was served; a dropped one is not seen here, and so ends nothing. An event starts with a hit that makes
`hits` in the window. It ends at a quiet frame, `end_after` seconds after the first quiet frame since the last hit. The
window is emptied by an end, so one hit starts one event only.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .match import Match
from .rule_file import Rule

Kind = Literal["start", "update", "end"]
# Why an event ended.
QUIET, LOST, ENDED, REMOVED, CHANGED = "quiet", "stream_lost", "stream_ended", "stream_removed", "rule_changed"


@dataclass(frozen=True)
class Best:
    """The most confident hit of an event."""

    frame: int
    time: float
    match: Match


@dataclass(frozen=True)
class Open:
    """An event under way. Times are seconds on the stream's clock.

    Attributes:
        id: the same in all messages about the event.
        sequence: of the next message, from 0.
        last_hit: time of the latest hit.
        last_message: time of the latest message.
        hits: frames that were hits since the event started, the first included.
    """

    id: str
    started: float
    last_hit: float
    last_message: float
    best: Best
    sequence: int = 1
    hits: int = 1
    level: str = ""


@dataclass(frozen=True)
class Event:
    """One message: `open` as it is at `time`. `reason` says why an event ended."""

    kind: Kind
    time: float
    sequence: int
    open: Open
    reason: str = ""


class Machine:
    """The state of one rule over one stream.

    Args:
        new_id: makes the id of a new event; never the same twice.
        saved: what `to_dict` gave, to go on from there. The window and the quiet time begin anew.
    """

    def __init__(self, rule: Rule, new_id: Callable[[], str], saved: Mapping[str, Any] | None = None) -> None:
        self.rule, self._new_id = rule, new_id
        self.open: Open | None = None
        self.last: float | None = None  # time of the latest frame; None: none since the start or the loss
        self._ended: float | None = None  # time of the latest end, where the cooldown begins
        self._quiet: float | None = None  # time of the first quiet frame since the last hit
        self._window: deque[tuple[float, bool]] = deque()
        self._count = 0  # hits in the window
        if saved is not None:
            self.open, self.last, self._ended = _load_open(saved["open"]), saved["last"], saved["ended"]

    def see(self, time: float, frame: int, match: Match | None) -> list[Event]:
        """Take one served frame; `time` never goes back.

        Returns:
            what begins, goes on or ends with it, in order.
        """
        events = self.pass_time(time)
        self.last = time
        self._push(time, match is not None)
        if self.open is None:
            cool = self._ended is None or _elapsed(self._ended, time) >= self.rule.cooldown
            if match is not None and self._count >= self.rule.hits and cool:
                self._quiet = None
                self.open = Open(self._new_id(), time, time, time, Best(frame, time, match))
                events.append(Event("start", time, 0, self.open))
            return events
        if match is None:
            self._quiet = time if self._quiet is None else self._quiet
            if _elapsed(self._quiet, time) >= self.rule.end_after:
                return events + self.end(time, QUIET)
        else:
            self._quiet = None
            best = self.open.best
            if match.confidence > best.match.confidence:
                best = Best(frame, time, match)
            self.open = dataclasses.replace(self.open, last_hit=time, hits=self.open.hits + 1, best=best)
        return events + self._update(time)

    def pass_time(self, time: float) -> list[Event]:
        """Say that it is `time` now: without frames for `lost_after` seconds the stream is lost."""
        if self.last is None or _elapsed(self.last, time) < self.rule.lost_after:
            return []
        lost = self.last + self.rule.lost_after
        self.last = None
        events = self.end(lost, LOST)
        self._clear()
        return events

    def end(self, time: float, reason: str) -> list[Event]:
        """End the open event, if there is one."""
        if self.open is None:
            return []
        event = Event("end", time, self.open.sequence, self.open, reason)
        self.open, self._ended = None, time
        self._clear()
        return [event]

    def to_dict(self) -> dict[str, Any]:
        """The state as JSON values."""
        return {
            "open": None if self.open is None else dataclasses.asdict(self.open),
            "last": self.last,
            "ended": self._ended,
        }

    def _update(self, time: float) -> list[Event]:
        assert self.open is not None
        level = self.open.level
        for step in self.rule.escalation:
            if _elapsed(self.open.started, time) >= step.after:
                level = step.level
        due = self.rule.update_every and _elapsed(self.open.last_message, time) >= self.rule.update_every
        if level == self.open.level and not due:
            return []
        sequence = self.open.sequence
        self.open = dataclasses.replace(self.open, level=level, last_message=time, sequence=sequence + 1)
        return [Event("update", time, sequence, self.open)]

    def _push(self, time: float, hit: bool) -> None:
        self._window.append((time, hit))
        self._count += hit
        while self._too_old(time):
            self._count -= self._window.popleft()[1]

    def _too_old(self, time: float) -> bool:
        if self.rule.frames:
            return len(self._window) > self.rule.frames
        return _elapsed(self._window[0][0], time) >= self.rule.seconds

    def _clear(self) -> None:
        self._window.clear()
        self._count, self._quiet = 0, None


def _elapsed(begin: float, end: float) -> float:
    """In whole milliseconds: seconds since 1970 are not exact, and 0.4 s must be 0.4 s."""
    return round(end - begin, 3)


def _load_open(saved: Mapping[str, Any] | None) -> Open | None:
    if saved is None:
        return None
    best = saved["best"]
    found = best["match"]
    match = Match(**{**found, "box": tuple(found["box"])})
    return Open(**{**saved, "best": Best(best["frame"], best["time"], match)})
