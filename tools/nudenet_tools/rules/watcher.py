"""All rules over one stream: takes served frames, and stores what they mean in the outbox.

The stream's clock shows the time of day at the first frame and goes on with the frames' own times. It never goes back,
not over restarts either.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from nudenet_tools.streams.runner import Served
from nudenet_tools.webhooks.outbox import Message, Outbox

from .evidence import Evidence
from .machine import ENDED, LOST, Event, Machine
from .match import judged, match
from .messages import RuleName, message
from .rule_file import Rule

_SAVE_EVERY = 1.0  # seconds, while an event is open


def state_key(stream: str, rule: str) -> str:
    """Under which the outbox holds the state of one rule over one stream."""
    return json.dumps([stream, rule])


class Watcher:
    """A consumer of one stream's served frames.

    Args:
        key: names the stream in the outbox, the same after a restart.
        label: names it in messages.
        targets: names of who gets the messages.
        states: what the outbox held at the start. What belongs to this stream and is still valid is gone on from.
        evidence: makes the pictures; None: none.
        stored: called after messages were stored.
        wall, monotonic: clocks in seconds; the first since 1970.
    """

    def __init__(
        self,
        key: str,
        label: str,
        rules: Sequence[Rule],
        outbox: Outbox,
        targets: Sequence[str],
        states: Mapping[str, Any],
        evidence: Evidence | None = None,
        stored: Callable[[], None] = lambda: None,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.label = label
        self._key, self._outbox, self._targets = key, outbox, targets
        self._evidence, self._stored, self._monotonic = evidence, stored, monotonic
        self._lock = threading.Lock()
        self._pictures: dict[str, bytes] = {}  # rule -> of the open event
        self._machines = []
        for rule in rules:
            saved = states.get(state_key(key, rule.name))
            if saved is not None:
                saved = saved["machine"] if saved["rule"]["sha256"] == rule.sha256 else None
            self._machines.append(Machine(rule, lambda: uuid.uuid4().hex, saved))
        latest = [machine.last for machine in self._machines if machine.last is not None]
        # The clock: `_time` when the monotonic clock showed `_at`; frames are at `_base` plus their own time.
        self._time, self._at, self._base = max([wall(), *latest]), monotonic(), 0.0
        self._begun = self._finished = False
        self._saved_at = float("-inf")

    def __call__(self, served: Served) -> None:
        """Take the next served frame."""
        with self._lock:
            if self._finished:
                return
            if not self._begun:
                self._begun, self._base = True, self._now() - served.frame.time
            now = max(self._base + served.frame.time, self._time)
            self._time, self._at = now, self._monotonic()
            messages: list[Message] = []
            for machine in self._machines:
                if judged(machine.rule, served.detections):
                    hit = match(machine.rule, served.detections)
                    messages += self._tell(machine, machine.see(now, served.frame.number, hit), served)
            self._store(messages)

    def tick(self) -> None:
        """Look at the clock: a stream without frames is lost after a while."""
        with self._lock:
            if not self._finished:
                now = self._now()
                events = [(machine, machine.pass_time(now)) for machine in self._machines]
                messages = [one for machine, told in events for one in self._tell(machine, told)]
                # A late frame must not be before the end of what it follows.
                self._time = max([self._time, *(event.time for _, told in events for event in told)])
                if messages:
                    self._at = self._monotonic() - (now - self._time)
                self._store(messages)

    def finish(self, failed: bool) -> None:
        """The stream is over: end what is open. With `failed` it broke off."""
        with self._lock:
            if not self._finished:
                self._finished = True
                reason = LOST if failed else ENDED
                self._store(
                    [one for machine in self._machines for one in self._tell(machine, machine.end(self._time, reason))]
                )

    def save(self) -> None:
        """Store the state as it is; open events go on after a restart."""
        with self._lock:
            if not self._finished:
                self._write([])

    def _now(self) -> float:
        return self._time + self._monotonic() - self._at

    def _tell(self, machine: Machine, events: list[Event], served: Served | None = None) -> list[Message]:
        name = machine.rule.name
        messages = []
        for event in events:
            if event.kind == "start":
                self._pictures.pop(name, None)
            self._look(machine.rule, event, served)
            messages.append(message(event, self.label, RuleName.of(machine.rule), self._pictures.get(name)))
        if machine.open is None:
            self._pictures.pop(name, None)
        elif not events:
            self._look(machine.rule, Event("update", self._time, 0, machine.open), served)
        return messages

    def _look(self, rule: Rule, event: Event, served: Served | None) -> None:
        """Keep the picture of the best frame, where it is this one."""
        best = event.open.best
        if self._evidence is None or served is None:
            return
        if (best.frame, best.time) == (served.frame.number, self._time):
            self._pictures[rule.name] = self._evidence.picture(served, rule)

    def _store(self, messages: list[Message]) -> None:
        is_open = any(machine.open is not None for machine in self._machines)
        if messages or (is_open and self._monotonic() - self._saved_at >= _SAVE_EVERY):
            self._write(messages)

    def _write(self, messages: list[Message]) -> None:
        self._saved_at = self._monotonic()
        states = {
            state_key(self._key, machine.rule.name): {
                "label": self.label,
                "rule": asdict(RuleName.of(machine.rule)),
                "machine": machine.to_dict(),
            }
            for machine in self._machines
        }
        self._outbox.record(messages, self._targets, states)
        if messages:
            self._stored()
