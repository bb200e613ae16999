"""Takes messages out of the outbox and tries each until it is delivered."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import TextIO

from .outbox import Message, Outbox

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 300.0  # seconds
_IDLE = 1.0  # seconds after which an empty outbox is looked at without being woken


class NotDelivered(Exception):
    """An attempt failed.

    Attributes:
        retry_after: seconds that the receiver asked for.
        all_wait: the receiver is in trouble, so other messages wait, too.
    """

    def __init__(self, text: str, retry_after: float | None = None, all_wait: bool = False) -> None:
        super().__init__(text)
        self.retry_after, self.all_wait = retry_after, all_wait


# Delivers one message or raises NotDelivered. May be called again with a message that did arrive.
Target = Callable[[Message], None]


class JsonLines:
    """One line a message."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def __call__(self, message: Message) -> None:
        try:
            print(message.body.decode(), file=self._file, flush=True)
        except OSError as error:
            raise NotDelivered(str(error), all_wait=True) from error


class Delivery:
    """A thread that delivers to one target. Failed attempts are repeated with growing random pauses.

    Args:
        name: of the target in the outbox.
        note: called with a line when the target begins to fail, and when it works again.
        clock: seconds since 1970.
        pause: seconds after so many attempts.
    """

    def __init__(
        self,
        outbox: Outbox,
        name: str,
        target: Target,
        note: Callable[[str], None],
        clock: Callable[[], float] = time.time,
        pause: Callable[[int], float] | None = None,
    ) -> None:
        self.name = name
        self._outbox, self._target, self._note, self._clock = outbox, target, note, clock
        self._pause = pause or back_off
        self._wake, self._stop = threading.Event(), threading.Event()
        self._failing = False
        self._blocked_until = 0.0  # for all messages
        self._arrived: int | None = None  # number of the latest message that arrived; the outbox may not know it yet
        self._outbox_errors = 0  # in a row
        self._thread = threading.Thread(target=self._run, name=f"delivery to {name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Say that there is something new."""
        self._wake.set()

    def finish(self, seconds: float) -> None:
        """Go on for at most `seconds` with what is due in that time, then end. The rest waits in the outbox."""
        end = time.monotonic() + seconds
        with contextlib.suppress(sqlite3.Error):  # the thread has said so
            while self._thread.is_alive() and self.delay() < end - time.monotonic():
                time.sleep(0.02)
        self._stop.set()
        self._wake.set()
        self._thread.join(max(0.0, end - time.monotonic()) + 1.0)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                delay = self.delay()
                if delay > 0:
                    self._wake.wait(min(delay, _IDLE))
                else:
                    self.attempt()
                self._outbox_errors = 0
            except sqlite3.Error as error:  # such as a full disk: the message stays and comes again
                self._note(f"{self._outbox.path}: {error}")
                self._stop.wait(self._pause(self._outbox_errors))
                self._outbox_errors += 1

    def delay(self) -> float:
        """Seconds until there is something to do; infinity where nothing waits."""
        waiting = self._outbox.first(self.name)
        if waiting is None:
            return float("inf")
        return max(0.0, max(waiting.due, self._blocked_until) - self._clock())

    def attempt(self) -> None:
        """Try the first message once."""
        waiting = self._outbox.first(self.name)
        if waiting is None:
            return
        try:
            if waiting.number != self._arrived:
                self._target(waiting.message)
        except Exception as caught:  # whatever goes wrong with one message must not end the deliveries
            error = caught if isinstance(caught, NotDelivered) else NotDelivered(f"{self.name}: {caught!r}", None, True)
            pause = max(error.retry_after or 0.0, self._pause(waiting.attempts))
            due = self._clock() + pause
            self._outbox.postpone(waiting.number, due)
            if error.all_wait:
                self._blocked_until = due
            if not self._failing:
                self._note(f"{error}; it is tried again")
            self._failing = True
        else:
            self._arrived = waiting.number
            self._outbox.delivered(waiting.number)
            if self._failing:
                self._note(f"{self.name}: delivered again")
            self._failing = False


def back_off(attempts: int) -> float:
    """Seconds until the next attempt: 1, 2, 4, ... up to 300, the second half of each at random."""
    return min(_FIRST_PAUSE * 2.0 ** min(attempts, 20), _LONGEST_PAUSE) * random.uniform(0.5, 1.0)
