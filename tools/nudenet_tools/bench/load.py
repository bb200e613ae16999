"""Load on the real server with the real perf_analyzer, and what it costs: latency, CPU time, time by step."""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from container import repository
from nudenet_tools.bench import perf_analyzer
from nudenet_tools.server.process import Server
from nudenet_tools.server.status import read_statistics

STEP_NAMES = {model: model.removeprefix("nudenet_") for model in repository.STEPS}
# As reports name the parts of a step's time -> field of `Counters`.
PARTS = {"queue": "queue", "compute_input": "input", "compute_infer": "infer", "compute_output": "output"}
# What perf_analyzer says when its windows have seen too little.
TOO_SHORT = (
    "No valid requests recorded",
    "Failed to obtain stable measurement",
    "failed to find the requested model version",  # looks for the version with executions in its window
)


@dataclass
class Load:
    """One load level; latencies in ms, CPU time in ms a picture."""

    level: float  # concurrency, or requests a second
    throughput: float  # pictures a second
    p50: float
    p95: float
    p99: float
    failures: int = 0
    core_ms: dict[str, float] = field(default_factory=dict)  # by process: triton, the steps, load generator
    mean_batch: dict[str, float] = field(default_factory=dict)  # by step
    step_ms: dict[str, dict[str, float]] = field(default_factory=dict)  # by step: queue, input, infer, output

    def as_dict(self) -> dict:
        return asdict(self)


class LoadBench:
    """perf_analyzer against one running server."""

    def __init__(self, server: Server, files: Sequence[bytes], window_s: float = 3.0) -> None:
        self._server, self._window = server, window_s
        self._folder = tempfile.TemporaryDirectory(prefix="nudenet-bench-")
        self._input = Path(self._folder.name) / "input.json"
        perf_analyzer.write_input(self._input, files)

    def close(self) -> None:
        self._folder.cleanup()

    def closed(self, concurrency: int, batch: int = 1, window_s: float = 0.0) -> Load:
        """Closed loop: `concurrency` requests of `batch` pictures always in flight; `window_s` 0: as made."""
        arguments = ["--concurrency-range", f"{concurrency}:{concurrency}", "-b", str(batch)]
        return self._measure(arguments, concurrency, batch, window_s or self._window)

    def open(self, rate: float) -> Load:
        """Open loop: `rate` single-picture requests a second, sent on time whatever the answers do."""
        arguments = ["--request-rate-range", f"{rate:g}:{rate:g}:1", "--request-distribution", "constant"]
        # perf_analyzer must not be what limits: enough threads to keep up with late answers.
        return self._measure([*arguments, "-b", "1", "--max-threads", "64"], rate, 1, self._window)

    def _measure(self, arguments: list[str], level: float, batch: int, window_s: float) -> Load:
        common = ["-m", "nudenet", "-i", "grpc", "-u", self._server.grpc_url, "--input-data", str(self._input)]
        # Three windows, each counted whatever they differ by: stability is judged over rounds, not inside one.
        before, cpu, own = read_statistics(self._server.http_url), self._cpu(), os.times()
        row = self._run([*common, "-r", "3", "-s", "999", *arguments], window_s)
        after, cpu_after, own_after = read_statistics(self._server.http_url), self._cpu(), os.times()
        recent = {model: counters - before[model][0] for model, (counters, _) in after.items()}
        pictures = recent["nudenet"].pictures
        spent: dict[str, float] = defaultdict(float)
        for pid, (name, seconds) in cpu_after.items():
            spent[name] += (seconds - cpu.get(pid, (name, 0.0))[1]) * 1e3 / pictures
        generator = own_after.children_user + own_after.children_system - own.children_user - own.children_system
        spent["load generator"] = generator * 1e3 / pictures
        load = Load(
            level,
            row["Inferences/Second"],
            row["p50 latency"] / 1e3,
            row["p95 latency"] / 1e3,
            row["p99 latency"] / 1e3,
            recent["nudenet"].failures,
            dict(spent),
        )
        for model, name in STEP_NAMES.items():
            load.mean_batch[name] = recent[model].mean_batch
            load.step_ms[name] = {part: recent[model].milliseconds(field) for part, field in PARTS.items()}
        return load

    @staticmethod
    def _run(arguments: list[str], window_s: float) -> dict[str, float]:
        """perf_analyzer's figures; on a busy machine a window may end before the first answer, so it grows."""
        for longer in (1, 4, 16):
            interval = ["--measurement-interval", str(int(longer * window_s * 1000 / 3))]
            try:
                (row,) = perf_analyzer.measure([*interval, *arguments])
                return row
            except perf_analyzer.PerfAnalyzerError as error:
                if longer == 16 or not any(words in str(error) for words in TOO_SHORT):
                    raise
        raise AssertionError

    def _cpu(self) -> dict[int, tuple[str, float]]:
        """CPU seconds by process of the server."""
        assert self._server.process is not None
        owners = {pid: name for model, name in STEP_NAMES.items() for pid in self._server.stub_pids(model)}
        owners[self._server.process.pid] = "triton"
        found = {}
        for pid, name in owners.items():
            times = psutil.Process(pid).cpu_times()
            found[pid] = (name, times.user + times.system)
        return found


def memory_mb(server: Server) -> dict[str, float]:
    """Resident memory of the server and of one instance of each step, and its /dev/shm use, in MB.

    Resident memory counts shared pages once a process.
    """
    assert server.process is not None
    found = {"triton": psutil.Process(server.process.pid).memory_info().rss / 1e6}
    for model, name in STEP_NAMES.items():
        sizes = [psutil.Process(pid).memory_info().rss / 1e6 for pid in server.stub_pids(model)]
        if sizes:
            found[name] = sum(sizes) / len(sizes)
    found["/dev/shm"] = server.shared_memory_bytes() / 1e6
    return found
