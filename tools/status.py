#!/usr/bin/env python3
"""What the models of a running server are doing, for a person at a terminal or a program."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import typer
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from container import repository
from nudenet_client import Client, ClientError
from nudenet_tools import ROOT
from nudenet_tools.server.status import Counters, Status, StatusError, read_status

FRAME = ROOT / "tests" / "data" / "astronaut_720p.jpg"
CANARY_DEADLINE = 5.0  # seconds

app = typer.Typer(add_completion=False)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Look:
    """One look at the server, and what a picture sent through it met."""

    status: Status
    time: float  # monotonic seconds
    canary: str | None = None  # "answered in 12 ms" or what went wrong; None: none was sent
    canary_failed: bool = False

    @property
    def healthy(self) -> bool:
        return self.status.live and self.status.ready and not self.canary_failed


def look(url: str, metrics_url: str, canary: bool) -> Look:
    """Ask the server once.

    Raises:
        StatusError: nobody answers at `url`.
    """
    answer, failed = _canary(url) if canary else (None, False)
    return Look(read_status(url, metrics_url), time.monotonic(), answer, failed)


def _canary(url: str) -> tuple[str, bool]:
    """Send one picture through all models; what happened, and whether that is a failure."""
    with Client(url, protocol="http", deadline=CANARY_DEADLINE, retries=0) as client:
        begin = time.perf_counter()
        try:
            client.detect(FRAME)
        except ClientError as error:
            return str(error), True
        return f"answered in {(time.perf_counter() - begin) * 1e3:.0f} ms", False


def screen(now: Look, before: Look | None = None) -> RenderableType:
    """Everything on one screen; means since the models were loaded, or since `before`."""
    parts: list[RenderableType] = [_head(now), _models(now, before)]
    if now.status.metrics_error is not None:
        parts.append(Text(f"no failures by reason, without metrics: {now.status.metrics_error}", style="yellow"))
    elif now.status.refused:
        reasons = ", ".join(f"{reason} {count}" for reason, count in now.status.refused.items())
        parts.append(Text(f"refused pictures since start: {reasons}", style="red"))
    for policy, verdicts in now.status.verdicts.items():
        counts = ", ".join(f"{verdict} {count}" for verdict, count in verdicts.items())
        parts.append(Text(f"verdicts of {policy} since start: {counts}"))
    return Group(*parts)


def _head(now: Look) -> RenderableType:
    status = now.status
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    health = Text("ready" if status.ready else "live, not ready" if status.live else "not live")
    health.stylize("bold green" if status.live and status.ready else "bold red")
    grid.add_row("server", f"Triton {status.version}, http://{status.url}")
    grid.add_row("health", health)
    if now.canary is not None:
        grid.add_row("canary", Text(now.canary, style="red" if now.canary_failed else "green"))
    grid.add_row("engine", status.engine)
    if status.packages:
        one = len(status.packages) == 1
        text = status.packages[0] if one else f"{' and '.join(status.packages)} at once: restart the server"
        grid.add_row("steps", Text(text, style="" if one else "red"))
    for uuid, gpu in status.gpus.items():
        used, total = (gpu.get(f"memory_{kind}_bytes", 0) / 2**30 for kind in ("used", "total"))
        grid.add_row("GPU", f"{uuid}: {gpu.get('utilization', 0):.0%} busy, {used:.1f} of {total:.1f} GiB")
    return grid


def _models(now: Look, before: Look | None) -> RenderableType:
    """A column for each model, in the order a picture takes."""
    order = {name: i for i, name in enumerate(repository.MODELS)}
    models = sorted(now.status.models, key=lambda model: order.get(model.name, len(order)))
    earlier = {model.name: model.counters for model in before.status.models} if before else {}
    seconds = now.time - before.time if before else 0.0
    recent = [_since(model.counters, earlier.get(model.name)) for model in models]
    # Triton gives an ensemble neither a queue nor batches of its own.
    steps = [counters if model.backend != "ensemble" else None for model, counters in zip(models, recent, strict=True)]

    table = Table("", *(model.name for model in models), box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in table.columns[1:]:
        column.justify = "right"

    def add(name: str, values: Iterable[str | Text], end_section: bool = False) -> None:
        table.add_row(Text(name, style="dim"), *values, end_section=end_section)

    def milliseconds(name: str, of: list[Counters | None]) -> list[str]:
        return [f"{c.milliseconds(name):.1f}" if c and c.requests else "" for c in of]

    add("version", (model.version for model in models))
    states = (model.state.lower() + (f": {model.reason}" if model.reason else "") for model in models)
    add("state", (Text(text, style="green" if text == "ready" else "red") for text in states))
    add("backend", (model.backend for model in models))
    add("instances", (model.instances for model in models), end_section=True)
    add("answered", (str(model.counters.requests) for model in models))
    add("failed", (_red(model.counters.failures) for model in models))
    for reason in sorted({reason for model in models for reason in model.failures}):
        add(f"  {reason}", (_red(model.failures.get(reason, 0)) for model in models))
    add("waiting", ("?" if model.pending is None else str(model.pending) for model in models))
    add("pictures", (str(model.counters.pictures) for model in models), end_section=True)
    add(f"last {seconds:.1f} s" if before else "since start", [""] * len(models))
    if before:
        add("pictures/s", (f"{counters.pictures / seconds:.1f}" for counters in recent))
    add("mean batch", (f"{c.mean_batch:.1f}" if c and c.executions else "" for c in steps))
    for label, name in (("queue ms", "queue"), ("input ms", "input"), ("compute ms", "infer"), ("output ms", "output")):
        add(label, milliseconds(name, steps))
    add("request ms", milliseconds("total", list(recent)))
    return table


def _since(now: Counters, before: Counters | None) -> Counters:
    if before is None or before.executions > now.executions:  # a new server in between counts from zero
        return now
    return now - before


def _red(count: int) -> Text:
    return Text(str(count), style="red" if count else "")


@app.command()
def status(
    url: Annotated[str, typer.Option(help="HOST:PORT of HTTP; default: 127.0.0.1 and HTTP_PORT.")] = "",
    metrics_url: Annotated[str, typer.Option(help="HOST:PORT of /metrics; default: that host and METRICS_PORT.")] = "",
    http_port: Annotated[int, typer.Option(envvar="HTTP_PORT", hidden=True)] = 8000,
    metrics_port: Annotated[int, typer.Option(envvar="METRICS_PORT", hidden=True)] = 8002,
    canary: Annotated[bool, typer.Option("--canary", help="Send a picture through all models too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, with --watch a line each time.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Again and again until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 2.0,
) -> None:
    """Health, engine, versions, counts, batches, times and failures on one screen.

    Exit status 1 where the server is not ready, does not answer, or fails the canary. Ready alone is what Triton
    says of itself: it can be ready while a model's process is dead, which only a picture sent through it shows.
    """
    url = url or f"127.0.0.1:{http_port}"
    metrics_url = metrics_url or f"{url.rpartition(':')[0]}:{metrics_port}"
    if watch:
        _watch(url, metrics_url, canary, as_json, interval)
        return
    try:
        now = look(url, metrics_url, canary)
    except StatusError as error:
        errors.print(f"{error}\nis the server running? make serve", style="red", markup=False)
        raise typer.Exit(1) from error
    console.print_json(_json(now)) if as_json else console.print(screen(now))
    raise typer.Exit(0 if now.healthy else 1)


def _watch(url: str, metrics_url: str, canary: bool, as_json: bool, interval: float) -> None:
    before: Look | None = None
    on_screen = console.is_terminal and not as_json
    with contextlib.suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False, screen=on_screen) as live:
        while True:
            try:
                now = look(url, metrics_url, canary)
                shown, line = screen(now, before), _json(now)
                before = now
            except StatusError as error:
                shown, line = Text(str(error), style="red"), json.dumps({"url": url, "error": str(error)})
                before = None
            if as_json:
                print(line, flush=True)
            elif on_screen:
                live.update(shown, refresh=True)
            else:
                console.print(shown)
                sys.stdout.flush()
            time.sleep(interval)


def _json(now: Look) -> str:
    return json.dumps(now.status.to_dict() | ({} if now.canary is None else {"canary": now.canary}))


if __name__ == "__main__":
    app()
