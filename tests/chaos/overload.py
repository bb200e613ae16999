"""Four times the capacity: what is served, how fast, what is shed, and how soon all is well again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

LOAD = [sys.executable, str(Path(__file__).with_name("load.py"))]
LIVE, BULK = 1, 2
FACTOR = 4
SATURATING = 24  # requests in flight that keep every step busy
RECOVERED_WITHIN_S = 10.0


@dataclass(frozen=True)
class Stream:
    """What one load generator saw; times in seconds."""

    seconds: float
    sent_at: np.ndarray
    latency: np.ndarray
    outcome: np.ndarray

    @property
    def served(self) -> np.ndarray:
        return self.outcome == "served"

    @property
    def served_rate(self) -> float:
        """Answers a second, while the load lasted; the first half second fills the queues."""
        done = self.sent_at + self.latency
        return float((self.served & (done >= 0.5) & (done < self.seconds)).sum() / (self.seconds - 0.5))

    def percentile(self, which: float, outcome: str = "served") -> float:
        chosen = self.latency[self.outcome == outcome]
        return float(np.percentile(chosen, which)) if len(chosen) else 0.0

    @property
    def errors(self) -> dict[str, int]:
        """Outcomes other than served and shed."""
        return {name: count for name, count in Counter(self.outcome.tolist()).items() if name not in ("served", "shed")}


def start(url: str, seconds: float, **options: float) -> subprocess.Popen:
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    return subprocess.Popen([*LOAD, f"--url={url}", f"--seconds={seconds}", *arguments], stdout=subprocess.PIPE)


def finish(process: subprocess.Popen, seconds: float) -> Stream:
    output, _ = process.communicate(timeout=seconds + 90)
    rows = json.loads(output)
    return Stream(
        seconds,
        np.array([row[0] for row in rows]),
        np.array([row[1] for row in rows]),
        np.array([row[2] for row in rows]),
    )


def load(url: str, seconds: float, **options: float) -> Stream:
    return finish(start(url, seconds, **options), seconds)


@dataclass(frozen=True)
class Outcome:
    """The figures of one run."""

    capacity: float  # requests a second, closed loop
    quiet_live: Stream  # a quarter of the capacity, nothing else
    flood: Stream  # four times the capacity
    live: Stream  # a quarter of the capacity at priority 1 ...
    bulk: Stream  # ... beside a flood at priority 2
    recovery_s: float  # from the end of the flood until ten answers in a row come at quiet speed

    def rows(self) -> list[tuple[str, str]]:
        def described(stream: Stream) -> str:
            shed, refused_ms = float((stream.outcome == "shed").mean()), 1e3 * stream.percentile(50, "shed")
            return (
                f"{len(stream.latency) / stream.seconds:.0f}/s sent, {stream.served_rate:.0f}/s served, "
                f"p50 {1e3 * stream.percentile(50):.0f} ms, p99 {1e3 * stream.percentile(99):.0f} ms, "
                f"shed {shed:.0%} (p50 {refused_ms:.0f} ms), errors {sum(stream.errors.values())}"
            )

        return [
            ("capacity", f"{self.capacity:.0f}/s"),
            ("live alone, 1/4 of capacity", described(self.quiet_live)),
            (f"flood, {FACTOR}x capacity", described(self.flood)),
            ("  served of capacity", f"{self.flood.served_rate / self.capacity:.0%}"),
            ("  quiet speed again after", f"{self.recovery_s:.2f} s"),
            ("live beside a bulk flood", described(self.live)),
            ("the bulk flood", described(self.bulk)),
        ]


def measure(url: str, seconds: float) -> Outcome:
    """All phases against the server at `url` (gRPC), `seconds` each."""
    before = load(url, seconds, in_flight=SATURATING).served_rate
    quiet = load(url, seconds, rate=before / 4, priority=LIVE)
    flood = load(url, seconds, rate=FACTOR * before, priority=LIVE)
    recovery = recover(url, quiet)
    # Other work on the machine comes and goes: the capacity around the flood is what counts.
    capacity = (before + load(url, seconds, in_flight=SATURATING).served_rate) / 2
    bulk = start(url, seconds + 1, rate=FACTOR * capacity, priority=BULK)
    time.sleep(1.0)  # its start
    live = load(url, seconds, rate=capacity / 4, priority=LIVE)
    return Outcome(capacity, quiet, flood, live, finish(bulk, seconds + 1), recovery)


def recover(url: str, quiet: Stream) -> float:
    """Seconds until ten answers in a row come within the quiet p99 (at least 50 ms)."""
    after = load(url, RECOVERED_WITHIN_S / 4, rate=20, priority=LIVE)
    good = after.served & (after.latency <= max(0.05, 2 * quiet.percentile(99)))
    for first in range(len(good) - 10):
        if good[first : first + 10].all():
            return float(after.sent_at[first] + after.latency[first])
    return float("inf")
