"""Four times the capacity: what is served, how fast, what is shed, and how soon all is well again."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from container.healthcheck import BUSY
from nudenet_tools.server.process import Options, Ports, Server

LOAD = [sys.executable, str(Path(__file__).with_name("load.py"))]
LIVE, BULK = 1, 2  # priorities
BULK_NICENESS = 19  # of a second server for bulk traffic: 15 shares of a core beside the 1024 of the first
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


def start(url: str, seconds: float, **options: float | str) -> subprocess.Popen:
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    return subprocess.Popen([*LOAD, f"--url={url}", f"--seconds={seconds}", *arguments], stdout=subprocess.PIPE)


def finish(process: subprocess.Popen, seconds: float) -> Stream:
    output, _ = process.communicate(timeout=seconds + 90)
    sent_at, latency, outcomes = zip(*json.loads(output), strict=True)
    # A server that has gone is unavailable, too, but has refused nothing.
    named = ["shed" if "UNAVAILABLE" in one and any(reason in one for reason in BUSY) else one for one in outcomes]
    return Stream(seconds, np.array(sent_at), np.array(latency), np.array(named))


def load(url: str, seconds: float, **options: float | str) -> Stream:
    return finish(start(url, seconds, **options), seconds)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def described(streams: Sequence[Stream]) -> str:
    """What became of the requests of all `streams`, rates by stream, in words."""
    latency = np.concatenate([stream.latency for stream in streams])
    outcome = np.concatenate([stream.outcome for stream in streams])
    everything = replace(streams[0], latency=latency, outcome=outcome)
    sent, shed = len(latency) / sum(stream.seconds for stream in streams), float((outcome == "shed").mean())
    return (
        f"{sent:.0f}/s sent, {_mean(stream.served_rate for stream in streams):.0f}/s served, "
        f"p50 {1e3 * everything.percentile(50):.0f} ms, p99 {1e3 * everything.percentile(99):.0f} ms, "
        f"shed {shed:.0%} (p50 {1e3 * everything.percentile(50, 'shed'):.0f} ms), "
        f"errors {sum(everything.errors.values())}"
    )


@contextlib.contextmanager
def on(cores: set[int]) -> Iterator[None]:
    """Programs that are started meanwhile stay on `cores`."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def split_cores() -> tuple[set[int], set[int]]:
    """Cores for a server, and one for the load generator; the same where there is only one."""
    *most, last = sorted(os.sched_getaffinity(0))
    return set(most) or {last}, {last}


@dataclass(frozen=True)
class Flood:
    """Four times as many requests as are answered, in turn with as many as are answered."""

    closed: list[Stream]
    floods: list[Stream]
    recovery_s: float  # from the end of the flood until ten answers in a row come at quiet speed

    @property
    def capacity(self) -> float:
        """Requests a second, closed loop."""
        return _mean(stream.served_rate for stream in self.closed)

    def rows(self) -> list[tuple[str, str]]:
        # In pairs: other work on the machine comes and goes.
        share = _mean(
            flood.served_rate / calm.served_rate for calm, flood in zip(self.closed, self.floods, strict=True)
        )
        return [
            ("capacity", f"{self.capacity:.0f}/s"),
            (f"flood, {FACTOR}x capacity", described(self.floods)),
            ("  served of capacity", f"{share:.0%}"),
            ("  quiet speed again after", f"{self.recovery_s:.2f} s"),
        ]


@dataclass(frozen=True)
class Mixed:
    """A quarter of the capacity live, alone and beside bulk traffic of different kinds."""

    alone: list[Stream]
    beside: dict[str, tuple[list[Stream], list[Stream]]]  # kind of bulk traffic -> live, bulk

    def rows(self) -> list[tuple[str, str]]:
        rows = [("live alone, 1/4 of capacity", described(self.alone))]
        for kind, (live, bulk) in self.beside.items():
            rows += [(f"live beside {kind}", described(live)), (f"  {kind}", described(bulk))]
        return rows


def flood(url: str, seconds: float, rounds: int = 4) -> Flood:
    """Flood the server at `url` (gRPC) for `seconds`; as long again at its capacity."""
    quiet = load(url, 2.0, rate=10, priority=LIVE)
    closed, floods = [], []
    for _ in range(rounds):
        closed.append(load(url, seconds / rounds, in_flight=SATURATING))
        floods.append(load(url, seconds / rounds, rate=FACTOR * closed[-1].served_rate, priority=LIVE))
    return Flood(closed, floods, recover(url, quiet))


@contextlib.contextmanager
def second_server() -> Iterator[Server]:
    """A server for bulk traffic, with little weight on the cores that it shares with the first."""
    with Server(Options(ports=Ports.free())) as server:
        assert server.process is not None
        os.setpriority(os.PRIO_PGRP, server.process.pid, BULK_NICENESS)
        yield server


def mixed(url: str, bulk_url: str, seconds: float, rounds: int = 2) -> Mixed:
    """Send live requests to the server at `url` (gRPC), alone and beside bulk traffic to the one at `bulk_url`.

    Each for `seconds`, in `rounds` turns.
    """
    capacity = load(url, seconds / 4, in_flight=SATURATING).served_rate
    each, rate = seconds / rounds, FACTOR * capacity
    kinds: dict[str, tuple[str, dict[str, float | str]]] = {
        f"{SATURATING} bulk requests at the second server": (bulk_url, {"in_flight": SATURATING}),
        f"a bulk flood of {FACTOR}x capacity there": (bulk_url, {"rate": rate}),
        "that flood in live's own queue, priority 2": (url, {"priority": BULK, "rate": rate}),
    }
    found = Mixed([], {kind: ([], []) for kind in kinds})
    for _ in range(rounds):
        found.alone.append(load(url, each, rate=capacity / 4, priority=LIVE))
        for kind, (target, options) in kinds.items():
            flood = start(target, each + 1, **options)
            time.sleep(1.0)  # its start
            found.beside[kind][0].append(load(url, each, rate=capacity / 4, priority=LIVE))
            found.beside[kind][1].append(finish(flood, each + 1))
    return found


def recover(url: str, quiet: Stream) -> float:
    """Seconds until ten answers in a row come within the quiet p99 (at least 50 ms)."""
    after = load(url, RECOVERED_WITHIN_S / 4, rate=20, priority=LIVE)
    good = after.served & (after.latency <= max(0.05, 2 * quiet.percentile(99)))
    for first in range(len(good) - 10):
        if good[first : first + 10].all():
            return float(after.sent_at[first] + after.latency[first])
    return float("inf")
