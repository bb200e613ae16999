"""One stream at work: a reader, a slot for the newest frame, and one or two senders."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from nudenet_client import Client, ClientError, Detections, Parameters

from . import addresses
from .source import Frame, Source, SourceError

_WINDOW = 5.0  # seconds over which current rates are taken
_LATENCIES = 10_000  # newest ones, for the percentiles


@dataclass(frozen=True)
class Served:
    """A frame with its answer. `latency` is in seconds, from when the frame was due to the answer."""

    frame: Frame
    jpeg: bytes
    detections: Detections
    latency: float


@dataclass(frozen=True)
class Failed:
    """A frame that could not be decoded or got no answer, and why."""

    frame: Frame
    reason: str


# Called with every served frame of one stream, in the stream's order, never twice at once.
Consumer = Callable[[Served], None]


@dataclass
class Counts:
    """What happened to the frames of one stream: at its end, read = served + dropped + failed."""

    read: int = 0
    served: int = 0
    dropped: int = 0
    failed: int = 0
    found: Counter[str] = field(default_factory=Counter)  # label -> detections
    reason: str = ""  # of the latest failure
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCIES))

    def latency_ms(self, percentile: float) -> float:
        """A percentile of the latest latencies in milliseconds; NaN before the first answer."""
        return float(np.percentile(list(self.latencies), percentile)) * 1e3 if self.latencies else float("nan")


class Rate:
    """Events a second over the last few seconds."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()

    def tick(self) -> None:
        self._times.append(time.monotonic())
        self._trim()

    def value(self) -> float:
        self._trim()
        times = list(self._times)
        return len(times) / max(time.monotonic() - times[0], 1.0) if times else 0.0

    def _trim(self) -> None:
        horizon = time.monotonic() - _WINDOW
        while self._times and self._times[0] < horizon:
            self._times.popleft()


class Stream:
    """Reads `source` and serves its newest frame, `in_flight` at a time. A frame that comes while all senders are busy
    waits in the slot; the next one takes its place, and the older one is dropped.

    Args:
        consumers: called with every served frame, in order.
        every_frame: the reader waits for the slot instead: nothing is dropped. For recordings.
        quality: of frames that have to be encoded as JPEG.
        stop: ends the stream early.
        on_failure: called with every failed frame, in the same order as `consumers`.
    """

    def __init__(
        self,
        source: Source,
        client: Client,
        parameters: Parameters,
        consumers: Sequence[Consumer],
        stop: threading.Event,
        *,
        in_flight: int = 2,
        every_frame: bool = False,
        quality: int = 85,
        on_failure: Callable[[Failed], None] = lambda failed: None,
    ) -> None:
        self.source, self.counts = source, Counts()
        self.rate_in, self.rate_served = Rate(), Rate()
        self.error = ""
        self._client, self._parameters, self._consumers, self._stop = client, parameters, consumers, stop
        self._every_frame, self._quality, self._on_failure = every_frame, quality, on_failure
        self._changed = threading.Condition()  # guards all below and `counts`
        self._slot: Frame | None = None
        self._ended = False
        self._taken = 0
        self._delivering = threading.Lock()
        self._answers: dict[int, Served | Failed] = {}  # waiting for their turn
        self._next = 0
        names = [("reader", self._read)] + [("sender", self._send)] * in_flight
        self._threads = [
            threading.Thread(target=self._guard, args=(work,), name=f"{name} {source.label}", daemon=True)
            for name, work in names
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end, at most `timeout` seconds in all."""
        end = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))

    @property
    def running(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def _guard(self, work: Callable[[], None]) -> None:
        """Whatever goes wrong in a thread ends this stream alone, and is said."""
        try:
            work()
        except Exception as error:
            with self._changed:
                text = str(error) if isinstance(error, (SourceError, OSError)) else repr(error)
                self.error = self.error or addresses.hide(text, self.source.name)
                self._drop_slot()
                self._end()

    def _drop_slot(self) -> None:
        if self._slot is not None:
            self._slot = None
            self.counts.dropped += 1

    def _end(self) -> None:
        self._ended = True
        self._changed.notify_all()

    def _read(self) -> None:
        for frame in self.source.frames(self._stop):
            if not self._offer(frame):
                break
        with self._changed:
            self._end()

    def _offer(self, frame: Frame) -> bool:
        """Put a frame into the slot; False: the stream has ended meanwhile."""
        with self._changed:
            self.counts.read += 1
            self.rate_in.tick()
            while self._every_frame and self._slot is not None and not (self._ended or self._stop.is_set()):
                self._changed.wait(0.1)
            if self._ended:
                self.counts.dropped += 1
                return False
            self._drop_slot()
            self._slot = frame
            self._changed.notify_all()
            return True

    def _take(self) -> tuple[int, Frame] | None:
        """The newest frame and its turn; None: the stream is over."""
        with self._changed:
            while True:
                if self._stop.is_set() or self.error:
                    self._drop_slot()
                if self._slot is not None:
                    break
                if self._ended:
                    return None
                self._changed.wait()
            frame, self._slot = self._slot, None
            turn, self._taken = self._taken, self._taken + 1
            self._changed.notify_all()
            return turn, frame

    def _send(self) -> None:
        while (taken := self._take()) is not None:
            turn, frame = taken
            try:
                jpeg = frame.jpeg(self._quality)
                found = self._client.detect(jpeg, self._parameters)
            except ClientError as error:
                reason = str(getattr(error, "reason", error))
                self._count(None, reason)
                self._deliver(turn, Failed(frame, reason))
            except Exception as error:
                self._count(None, repr(error))
                raise
            else:
                served = Served(frame, jpeg, found, time.monotonic() - frame.due)
                self._count(served, "")
                self._deliver(turn, served)

    def _count(self, served: Served | None, reason: str) -> None:
        with self._changed:
            if served is None:
                self.counts.failed += 1
                self.counts.reason = reason
                return
            self.counts.served += 1
            self.rate_served.tick()
            self.counts.latencies.append(served.latency)
            self.counts.found.update(served.detections.labels)

    def _deliver(self, turn: int, answer: Served | Failed) -> None:
        """Hand answers to the consumers in the order in which their frames were taken."""
        with self._delivering:
            self._answers[turn] = answer
            while self._next in self._answers:
                answer = self._answers.pop(self._next)
                self._next += 1
                if isinstance(answer, Failed):
                    self._on_failure(answer)
                    continue
                for consume in self._consumers:
                    consume(answer)
