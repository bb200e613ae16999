#!/usr/bin/env python3
"""Find the best configuration for this machine and a latency budget, and write it as configs/<name>.pbtxt.

python tools/tune.py --budget-ms 67 --name mine
python tools/serve.py --config-name mine
"""

from __future__ import annotations

import itertools
import re
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from container import repository
from container.repository import ConfigError, Tuning
from nudenet_tools.bench import frames, machine
from nudenet_tools.bench.load import LoadBench
from nudenet_tools.bench.perf_analyzer import PerfAnalyzerError
from nudenet_tools.bench.promises import number
from nudenet_tools.server import precision_times, tuning
from nudenet_tools.server.prepare import prepare, serves_openvino
from nudenet_tools.server.process import Options, Ports, Server, ServerError

FINALISTS = 3
FINAL_ROUNDS = 2  # more measurements of each finalist: one short window picks the luckiest of many
WARM_UP_S = 0.6
DECODER, DETECTOR = "nudenet_preprocess", "nudenet_trt"
console = Console(highlight=False)


@dataclass(frozen=True)
class Candidate:
    """What one server is run with. threads: of each detector instance; None where the engine has no such choice."""

    decoders: int
    detectors: int
    threads: int | None
    delay_us: int

    def tuning(self, base: Tuning) -> Tuning:
        """`base` with this candidate's values in place of its own."""
        detector = dict(base.parameters.get(DETECTOR, {}))
        if self.threads is not None:
            detector["threads"] = str(self.threads)
        return Tuning(
            {**base.instances, DECODER: self.decoders, DETECTOR: self.detectors},
            {**base.parameters, DETECTOR: detector},
            {**base.queue_delay_us, DETECTOR: self.delay_us},
        )


@dataclass(frozen=True)
class Result:
    """The best level of one server: the most pictures a second within the budget, else the shortest p99."""

    throughput: float
    p99: float  # ms
    concurrency: int
    budget_ms: float
    failures: int = 0

    @property
    def in_budget(self) -> bool:
        """Whether all were answered, and in time."""
        return self.p99 <= self.budget_ms and not self.failures

    @property
    def rank(self) -> tuple[bool, float]:
        """Higher is better."""
        return (self.in_budget, self.throughput if self.in_budget else -self.p99)


def current(config_name: str, models: Path) -> Candidate:
    """What `config_name` runs with on this machine untuned."""
    tuned = tuning.for_config(config_name)
    decoder, detector = (
        repository.read_config(repository.config_path(model, config_name, models)) for model in (DECODER, DETECTOR)
    )
    threads = tuned.parameters.get(DETECTOR, {}).get("threads")
    return Candidate(
        tuned.instances.get(DECODER, repository.instances(decoder)),
        tuned.instances.get(DETECTOR, repository.instances(detector)),
        int(threads) if threads is not None else None,
        tuned.queue_delay_us.get(DETECTOR, detector.dynamic_batching.max_queue_delay_microseconds),
    )


def candidates(
    now: Candidate, decoders: Sequence[int], detectors: Sequence[int], threads: Sequence[int], delays_us: Sequence[int]
) -> list[Candidate]:
    """All combinations, `now` first; empty lists stand for a choice by the number of cores."""
    cores = tuning.cores()
    on_cpu = now.threads is not None
    found = [now]
    for count in detectors or sorted({1, max(1, cores // 2), cores} if on_cpu else {1, 2, 3}):
        each = (threads or sorted({max(1, cores // count), cores})) if on_cpu else (None,)
        around = decoders or sorted({max(1, now.decoders - 1), now.decoders, now.decoders + 1})
        found += [Candidate(*values) for values in itertools.product(around, (count,), each, delays_us)]
    return list(dict.fromkeys(found))


def measure(
    options: Options, files: Sequence[bytes], levels: Sequence[int], window_s: float, budget_ms: float
) -> Result:
    """Start a server, load it at each concurrency, stop it."""
    with Server(replace(options, ports=Ports.free())) as server:
        warm_up, bench = LoadBench(server, files, WARM_UP_S), LoadBench(server, files, window_s)
        try:
            warm_up.closed(levels[0])
            loads = [bench.closed(level) for level in levels]
        finally:
            warm_up.close()
            bench.close()
    results = [Result(load.throughput, load.p99, int(load.level), budget_ms, load.failures) for load in loads]
    return max(results, key=lambda result: result.rank)


def median(results: Sequence[Result]) -> Result:
    """Of several measurements of one candidate, at the concurrency that was best most often."""
    level = statistics.mode(result.concurrency for result in results)
    same = [result for result in results if result.concurrency == level]
    return Result(
        statistics.median(result.throughput for result in same),
        statistics.median(result.p99 for result in same),
        level,
        same[0].budget_ms,
        sum(result.failures for result in same),
    )


def write_named(name: str, config_name: str, tuned: Tuning, models: Path, header: str) -> list[Path]:
    """Write ``configs/<name>.pbtxt`` of every model that `config_name` or `tuned` says something about.

    Args:
        header: a comment line on top.

    Returns:
        the files.
    """
    written = []
    with tempfile.TemporaryDirectory(prefix="nudenet-tune-") as scratch:
        repository.write_effective(Path(scratch) / "models", config_name, tuned, models)
        for model in repository.MODELS:
            base = repository.config_path(model, config_name, models)
            effective = Path(scratch) / "models" / model / "config.pbtxt"
            target = models / model / "configs" / f"{name}.pbtxt"
            # Without a file of this name Triton takes config.pbtxt: enough where nothing differs from that.
            if repository.read_config(effective) == repository.read_config(models / model / "config.pbtxt"):
                target.unlink(missing_ok=True)  # of an earlier run
                continue
            target.parent.mkdir(exist_ok=True)
            source = base.relative_to(models)
            target.write_text(
                f"# {header}\n# Everything else is as in {source}, which says why.\n{effective.read_text()}"
            )
            written.append(target)
    return written


def _numbers(text: str) -> list[int]:
    try:
        return [int(value) for value in text.split(",")] if text else []
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not numbers with commas between") from None


def _row(candidate: Candidate, result: Result) -> tuple[str, ...]:
    threads = "" if candidate.threads is None else str(candidate.threads)
    values = (str(candidate.decoders), str(candidate.detectors), threads, f"{candidate.delay_us / 1e3:g}")
    p99 = number(result.p99)
    if result.p99 > result.budget_ms:
        p99 += f" > {result.budget_ms:g}"
    if result.failures:
        p99 += f", {result.failures} failed"
    return (*values, number(result.throughput), p99, str(result.concurrency))


def main(
    budget_ms: Annotated[float, typer.Option(min=1, help="p99 that a request may take, ms; 67 is two frames.")] = 67,
    name: Annotated[str, typer.Option(help="Of the configuration to write: configs/<name>.pbtxt.")] = "tuned",
    config_name: Annotated[str, typer.Option(help="Configuration to start from; default: as make serve.")] = "",
    concurrency: Annotated[str, typer.Option(help="Requests in flight to try, comma-separated.")] = "4,8,16",
    decoders: Annotated[str, typer.Option(help="Decoder instances to try; default: by cores.")] = "",
    detectors: Annotated[str, typer.Option(help="Detector instances to try; default: by cores.")] = "",
    threads: Annotated[str, typer.Option(help="Threads of a detector instance (cpu); default: by cores.")] = "",
    delays_us: Annotated[
        str, typer.Option(help="Microseconds that the detector waits for a fuller batch; 0 beside a queue policy.")
    ] = "0",
    window: Annotated[float, typer.Option(min=0.5, help="Seconds a load level is measured.")] = 2,
    force: Annotated[bool, typer.Option(help="Replace a configuration of this name.")] = False,
    models: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Model repository.")] = (
        repository.MODEL_REPOSITORY
    ),
) -> None:
    """Sweep instances, threads and batching delay with 720p pictures; keep the machine quiet meanwhile."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise typer.BadParameter(f"{name!r} is not lower-case letters, digits, - and _", param_hint="--name")
    if name in repository.config_names(models) and not force:
        raise typer.BadParameter(f"configs/{name}.pbtxt exists; --force replaces it", param_hint="--name")
    levels, choices = _numbers(concurrency), [_numbers(text) for text in (decoders, detectors, threads, delays_us)]
    if not levels or not choices[-1] or min(*levels, *itertools.chain(*choices[:3], [1])) < 1 or min(choices[-1]) < 0:
        raise typer.BadParameter("concurrency, instances and threads are 1 at least, delays 0")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave through the context managers: no server stays
    try:
        base_name = prepare(config_name)
        base, now = tuning.for_config(base_name), current(base_name, models)
        for delay_us in choices[-1]:  # a delay that a configuration does not allow is refused before anything runs
            with tempfile.TemporaryDirectory(prefix="nudenet-tune-") as scratch:
                tuned = replace(now, delay_us=delay_us).tuning(base)
                repository.write_effective(Path(scratch) / "models", base_name, tuned, models)
        if serves_openvino(base_name, models):
            choice = precision_times.ensure(models / DETECTOR / "1", tuning.cores(), console.print, again=True)
            console.print(f"precision auto is {choice.precision}: {choice.reason}")
        files = frames.frames("720p")
        options = Options(config_name=base_name, model_repository=models)

        def run(candidate: Candidate) -> Result:
            tuned = replace(options, tuning=candidate.tuning(base))
            result = measure(tuned, files, levels, window, budget_ms)
            values = dict(zip(COLUMNS, _row(candidate, result), strict=True))
            console.print("  ".join(f"{key} {value}" for key, value in values.items() if value), soft_wrap=True)
            return result

        found = {candidate: [run(candidate)] for candidate in candidates(now, *choices)}
        first = sorted(found, key=lambda candidate: found[candidate][0].rank, reverse=True)[:FINALISTS]
        finalists = list(dict.fromkeys([*first, now]))
        console.print("once more, those that did best and what this machine has now:")
        for _ in range(FINAL_ROUNDS):
            for candidate in finalists:
                found[candidate].append(run(candidate))
        final = {candidate: median(found[candidate]) for candidate in finalists}
        best = max(final, key=lambda candidate: final[candidate].rank)
        _show(final, best, now, budget_ms)
        if not final[best].in_budget:
            console.print(f"nothing keeps p99 within {budget_ms:g} ms: fewer requests in flight, or a faster machine")
            raise typer.Exit(1)
        described = machine.describe()
        result = final[best]
        header = (
            f"Measured {described['date']} by tools/tune.py, {described['cpu']}, {described['cores']} cores: "
            f"{number(result.throughput)} pictures/s, p99 {number(result.p99)} ms (budget {budget_ms:g}) "
            f"with {result.concurrency} in flight."
        )
        for path in write_named(name, base_name, best.tuning(base), models, header):
            console.print(f"written: {path}", soft_wrap=True)
    except (ServerError, PerfAnalyzerError, ConfigError) as error:
        console.print(f"tune: {error}", style="red", markup=False)
        raise typer.Exit(1) from error


COLUMNS = ("decoders", "detectors", "threads", "delay ms", "pictures/s", "p99 ms", "in flight")


def _show(final: dict[Candidate, Result], best: Candidate, now: Candidate, budget_ms: float) -> None:
    table = Table(*COLUMNS, "", title=f"Most pictures a second with p99 within {budget_ms:g} ms", title_justify="left")
    for candidate in sorted(final, key=lambda each: final[each].rank, reverse=True):
        remark = " ".join(text for text, says in (("best", candidate == best), ("now", candidate == now)) if says)
        table.add_row(*_row(candidate, final[candidate]), remark)
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
