"""Hours in small: a steady load, and what grows meanwhile."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass

import numpy as np
import psutil

from chaos.fuzz import resident
from chaos.overload import SATURATING, Stream, finish, load, start
from nudenet_tools.server.process import SHM, Server
from nudenet_tools.server.status import read_statistics

SHARE = 0.8  # of the capacity


@dataclass(frozen=True)
class Sample:
    """What a server and its stubs hold at one moment."""

    memory: int  # bytes of their own
    regions: tuple[int, ...]  # bytes in /dev/shm, of each region
    files: int  # open descriptors
    processes: int
    executions: int  # of the detector, since the start

    @staticmethod
    def take(server: Server) -> Sample:
        assert server.process is not None
        main = psutil.Process(server.process.pid)
        everyone = [main, *main.children(recursive=True)]
        regions = list(SHM.glob(f"{server.region_prefix}*"))
        return Sample(
            resident(main.pid),
            tuple(region.stat().st_blocks * 512 for region in regions),
            sum(process.num_fds() for process in everyone),
            len(everyone),
            read_statistics(server.http_url)["nudenet_trt"][0].executions,
        )

    @property
    def shared(self) -> int:
        """Bytes in /dev/shm."""
        return sum(self.regions)


@dataclass(frozen=True)
class Outcome:
    """One soak; the first period is the warm-up."""

    rate: float  # requests a second
    samples: list[Sample]  # at the end of each period
    periods: list[Stream]
    seconds: float  # of a period

    @property
    def executions(self) -> list[float]:
        """Of the detector, a second, in each period after the warm-up."""
        counts = [sample.executions for sample in self.samples]
        return [(after - before) / self.seconds for before, after in itertools.pairwise(counts)]

    def growth(self, what: str) -> float:
        """From the end of the warm-up to the end, as a share."""
        values = np.array([getattr(sample, what) for sample in self.samples], float)
        return float(values[-1] / values[0] - 1)

    def rows(self) -> list[tuple[str, str]]:
        last = self.samples[-1]
        p99 = ", ".join(f"{1e3 * period.percentile(99):.0f}" for period in self.periods)
        shed = sum(int((period.outcome == "shed").sum()) for period in self.periods)
        errors = sum(sum(period.errors.values()) for period in self.periods)
        sent = sum(len(period.latency) for period in self.periods)
        return [
            (
                "load",
                f"{self.rate:.0f}/s, {sent} requests, {shed} shed, {errors} errors",
            ),
            ("p99 by period, ms", p99),
            ("detector's executions a second by period", ", ".join(f"{rate:.1f}" for rate in self.executions)),
            ("memory", f"{last.memory / 1e6:.0f} MB, growth after warm-up {self.growth('memory'):+.1%}"),
            ("/dev/shm", f"{last.shared / 1e6:.0f} MB, growth {self.growth('shared'):+.1%}"),
            ("open files", f"{last.files}, growth {self.growth('files'):+.1%}"),
        ]


def soak(server: Server, period_s: float, periods: int) -> Outcome:
    """Load `server` at `SHARE` of its capacity for `periods` of `period_s` seconds each."""
    capacity = load(server.grpc_url, min(period_s, 10.0), in_flight=SATURATING).served_rate
    streams, samples = [], []
    for _ in range(periods):
        generator = start(server.grpc_url, period_s, rate=SHARE * capacity)
        streams.append(finish(generator, period_s))
        time.sleep(0.5)
        samples.append(Sample.take(server))
    return Outcome(SHARE * capacity, samples, streams, period_s)
