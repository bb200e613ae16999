#!/usr/bin/env python3
"""Measure this machine: the real server under load, its in-process ceiling, and what else one might run.

python tools/bench.py run --only ensemble,open
python tools/bench.py tables bench/results/MACHINE.json
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from container.repository import ConfigError
from nudenet_tools import ROOT
from nudenet_tools.bench import chart
from nudenet_tools.bench import report as bench_report
from nudenet_tools.bench.gpu import gpu
from nudenet_tools.bench.int8 import Int8Error
from nudenet_tools.bench.perf_analyzer import PerfAnalyzerError
from nudenet_tools.bench.precisions import precisions
from nudenet_tools.bench.process import PeerError
from nudenet_tools.bench.rounds import QUICK, Bench, Part, Settings
from nudenet_tools.bench.sizing import sizing
from nudenet_tools.server.prepare import ensure_onnx
from nudenet_tools.server.process import ServerError

app = typer.Typer(add_completion=False, help=__doc__)
# Into a file or a pipe the tables keep their width.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)

for command in (gpu, precisions, sizing):
    app.command()(command)


def _parts(text: str) -> list[Part]:
    try:
        return [Part(name.strip()) for name in text.split(",")] if text else list(Part)
    except ValueError:
        known = ",".join(part.value for part in Part)
        raise typer.BadParameter(f"{text!r}: parts are {known}", param_hint="--only") from None


@app.command()
def run(
    only: Annotated[
        str, typer.Option(help="Comma-separated parts: ensemble, open, peers, int8, growth, aspects.")
    ] = "",
    quick: Annotated[
        bool, typer.Option(help="One short round, to see that all works; the figures mean little.")
    ] = False,
    rounds: Annotated[int, typer.Option(min=0, help="Rounds; 0: as many as usual.")] = 0,
    output: Annotated[
        Path | None, typer.Option(help="JSON file; the chart goes beside it. Default: bench/results/<machine>.json")
    ] = None,
) -> None:
    """Measure, print tables, write JSON and a chart. Keep the machine quiet meanwhile; about 8 minutes."""
    parts = _parts(only)
    settings = QUICK if quick else Settings()
    settings = replace(settings, rounds=rounds) if rounds else settings
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave through the context managers: nothing stays running
    begin = time.monotonic()

    def say(line: str) -> None:
        console.print(f"[dim]{time.monotonic() - begin:5.0f} s[/]  {line}", soft_wrap=True)

    try:
        ensure_onnx()
        report = Bench(settings, parts, say).run()
    except (ServerError, PeerError, Int8Error, PerfAnalyzerError, ConfigError) as error:
        console.print(f"bench: {error}", style="red", markup=False)
        raise typer.Exit(1) from error
    report["seconds"] = time.monotonic() - begin
    whole = set(parts) == set(Part) and not quick
    name = bench_report.slug(report["machine"])
    # Only a whole run stands among the results; anything else would replace it by less.
    path = output or (bench_report.RESULTS / f"{name}.json" if whole else ROOT / "out" / f"{name}.json")
    bench_report.write(report, path)
    bench_report.show(report, console)
    console.print(f"written: {path}", soft_wrap=True)
    if Part.ensemble in parts:
        chart.draw(report, path.with_suffix(".svg"))
        console.print(f"written: {path.with_suffix('.svg')}", soft_wrap=True)


@app.command()
def tables(
    report: Annotated[Path, typer.Argument(help="JSON of a whole run.")],
    gpu: Annotated[Path, typer.Option(help="JSON of tools/bench.py gpu; left out where it is missing.")] = (
        bench_report.GPU_RESULT
    ),
    file: Annotated[Path, typer.Option(help="Markdown file with bench and sizing markers.")] = (
        ROOT / "docs" / "benchmark.md"
    ),
) -> None:
    """Rewrite what stands between <!-- bench:begin --> and <!-- bench:end -->, and the same for sizing."""
    try:
        measured = bench_report.read(report)
        bench_report.require_whole(measured)
        on_gpu = bench_report.read(gpu) if gpu.is_file() else None
        text = file.read_text()
        contents = {
            "bench": bench_report.bench_text(measured, on_gpu, _chart(report, file)),
            "sizing": bench_report.sizing_text(measured, on_gpu),
        }
    except (bench_report.ReportError, OSError) as error:
        console.print(f"bench: {error}", style="red", markup=False)
        raise typer.Exit(1) from error
    done: list[str] = []
    for name, content in contents.items():
        changed = bench_report.rewrite(text, name, content)
        if changed is not None:
            text, done = changed, [*done, name]
    if not done:
        console.print(f"bench: {file} has neither <!-- bench:begin --> nor <!-- sizing:begin -->", style="red")
        raise typer.Exit(1)
    file.write_text(text)
    console.print(f"{file}: rewritten: {', '.join(done)}", soft_wrap=True)


def _chart(report: Path, file: Path) -> str:
    """The chart's path as `file` must name it; empty where there is none."""
    chart = report.with_suffix(".svg").resolve()
    return os.path.relpath(chart, file.resolve().parent) if chart.is_file() else ""


if __name__ == "__main__":
    app()
