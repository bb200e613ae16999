"""The live table and the summary."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from .runner import Stream

_SHOWN_LABELS = 3


def live(streams: Sequence[Stream]) -> Table:
    """Current rates of every stream."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("stream", overflow="fold", ratio=2)
    for name in ("FPS in", "FPS served", "dropped", "failed", "p50 ms", "p99 ms"):
        table.add_column(name, justify="right")
    table.add_column("found", overflow="fold", ratio=2)
    for stream in streams:
        counts = stream.counts
        table.add_row(
            escape(stream.source.label),
            f"{stream.rate_in.value():.1f}",
            f"{stream.rate_served.value():.1f}",
            str(counts.dropped),
            str(counts.failed),
            f"{counts.latency_ms(50):.0f}",
            f"{counts.latency_ms(99):.0f}",
            _remark(stream),
            style=None if stream.running else "dim",
        )
    return table


def summary(streams: Sequence[Stream]) -> Table:
    """Totals of every stream, and of all together."""
    table = Table(box=box.SIMPLE_HEAD, show_footer=len(streams) > 1)
    total = [sum(getattr(s.counts, name) for s in streams) for name in ("read", "served", "dropped", "failed")]
    table.add_column("stream", "all", overflow="fold", ratio=2)
    for name, number in zip(("read", "served", "dropped", "failed"), total, strict=True):
        table.add_column(name, str(number), justify="right")
    for name in ("p50 ms", "p99 ms"):
        table.add_column(name, justify="right")
    table.add_column("found", overflow="fold", ratio=2)
    for stream in streams:
        counts = stream.counts
        numbers = (str(number) for number in (counts.read, counts.served, counts.dropped, counts.failed))
        times = (f"{counts.latency_ms(50):.0f}", f"{counts.latency_ms(99):.0f}")
        table.add_row(escape(stream.source.label), *numbers, *times, _remark(stream))
    return table


def _remark(stream: Stream) -> str:
    """What was found most, or what is wrong."""
    trouble = stream.error or stream.counts.reason
    if trouble:
        return f"[red]{escape(trouble)}[/red]"
    found = ", ".join(f"{label} {number}" for label, number in stream.counts.found.most_common(_SHOWN_LABELS))
    lost = f"opened again {stream.source.reconnects} times" if stream.source.reconnects else ""
    return "; ".join(part for part in (found, lost) if part)
