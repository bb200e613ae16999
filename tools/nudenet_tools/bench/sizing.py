#!/usr/bin/env python3
"""How many servers for how many streams, from measured capacities.

    python tools/bench.py sizing "2 CPU cores=240" "H100, 16 cores=2500" --streams 1,10,100 --fps 30

The capacity is what `make bench` measures as the most pictures a second that one server answers, end to end.
Prints a Markdown table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import typer

# Above it queues grow faster than the load: waiting time at 70% is about that of service, at 90% four times as much.
HEADROOM = 0.7


@dataclass(frozen=True)
class Machine:
    """One kind of server: `capacity` in pictures a second."""

    name: str
    capacity: float

    def streams(self, fps: float, headroom: float) -> int:
        """Streams of `fps` pictures a second that one server carries."""
        return math.floor(self.capacity * headroom / fps + 1e-9)

    def servers(self, streams: int, fps: float, headroom: float) -> int:
        """Servers for `streams`, and one more, so that one may fail or be updated."""
        return math.ceil(streams * fps / (self.capacity * headroom) - 1e-9) + 1


def parse(text: str) -> Machine:
    """``name=pictures a second``.

    Raises:
        typer.BadParameter: anything else.
    """
    name, _, capacity = text.rpartition("=")
    try:
        machine = Machine(name.strip(), float(capacity))
    except ValueError:
        machine = Machine("", 0)
    if not machine.name or not machine.capacity > 0 or math.isinf(machine.capacity):
        raise typer.BadParameter(f"{text!r} is not NAME=PICTURES_A_SECOND, e.g. '2 CPU cores=240'")
    return machine


def table(machines: list[Machine], streams: list[int], fps: float, headroom: float) -> str:
    """The Markdown table: a row a machine, a column a number of streams."""
    columns = ["server", "pictures/s", f"streams at {fps:g}/s", *(f"{n} stream{'s' * (n > 1)}" for n in streams)]
    rows = [
        [m.name, f"{m.capacity:g}", str(m.streams(fps, headroom)), *(str(m.servers(n, fps, headroom)) for n in streams)]
        for m in machines
    ]
    lines = [columns, ["---"] + ["---:"] * (len(columns) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def sizing(
    measured: Annotated[list[str], typer.Argument(help="NAME=PICTURES_A_SECOND, as measured.")],
    streams: Annotated[str, typer.Option(help="Numbers of streams, comma-separated.")] = "1,10,30,100",
    fps: Annotated[float, typer.Option(min=0.001, help="Pictures a second of one stream.")] = 30,
    headroom: Annotated[float, typer.Option(min=0.05, max=1, help="Share of the capacity to plan with.")] = HEADROOM,
) -> None:
    """Print how many streams one server carries, and how many servers a number of streams needs, one spare included."""
    try:
        numbers = [int(number) for number in streams.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{streams!r} is not numbers with commas between", param_hint="--streams") from None
    print(table([parse(text) for text in measured], numbers, fps, headroom))
