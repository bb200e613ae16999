"""Agreement by the pictures' aspect, with how far chance may have helped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from nudenet_build.evaluation.matching import Agreement

ASPECTS = {"2.4:1": 2.4, "16:9": 16 / 9, "4:3": 4 / 3, "1:1": 1.0, "3:4": 3 / 4, "9:16": 9 / 16}  # width / height
RESAMPLES = 2000
LEVEL = 5  # per cent: the lower bound that 95 % of the resamples reach


def aspect_of(width: float, height: float) -> str:
    """The name in `ASPECTS` that a picture's shape is nearest to."""
    return min(ASPECTS, key=lambda name: abs(math.log(width / height / ASPECTS[name])))


@dataclass(frozen=True)
class AspectFigure:
    """How detections of one aspect's pictures agree with a reference."""

    against: str
    tested: str
    aspect: str
    threshold: float
    pictures: int
    sources: int  # different pictures that these were made from
    agreement: Agreement
    f1_lower: float  # bootstrap over source pictures, see `f1_lower_bound`; nan for a single source

    @property
    def recall(self) -> float:
        """Part of the reference's detections that was found."""
        return self.agreement.matched / self.agreement.reference if self.agreement.reference else float("nan")

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "against": self.against,
            "tested": self.tested,
            "aspect": self.aspect,
            "threshold": self.threshold,
            "pictures": self.pictures,
            "sources": self.sources,
            "recall": self.recall,
            "f1_lower": self.f1_lower,
            **self.agreement.as_dict(),
        }


def f1_lower_bound(counts: Sequence[tuple[int, int, int]], sources: Sequence[str], seed: int = 0) -> float:
    """F1 that 95 % of the resamples reach.

    Whole source pictures are drawn, with all their variants: variants of one picture are no independent evidence.

    Args:
        counts: matched, missed, extra of each picture.
        sources: the picture each one was made from.
    """
    names = list(dict.fromkeys(sources))
    if len(names) < 2:
        return float("nan")
    totals = np.zeros((len(names), 3))
    for row, source in zip(counts, sources, strict=True):
        totals[names.index(source)] += row
    drawn = np.random.default_rng(seed).integers(len(names), size=(RESAMPLES, len(names)))
    matched, missed, extra = totals[drawn].sum(axis=1).T
    total = 2 * matched + missed + extra
    return float(np.percentile(np.divide(2 * matched, total, out=np.ones_like(total), where=total > 0), LEVEL))


def compare(
    against: str,
    tested: str,
    reference: Sequence[np.ndarray],
    found: Sequence[np.ndarray],
    aspects: Sequence[str],
    sources: Sequence[str],
    threshold: float,
) -> list[AspectFigure]:
    """One row for each aspect that there are pictures of.

    Args:
        reference, found: detections [K,6] of each picture; those below `threshold` are left out on both sides.
        aspects, sources: of each picture.
    """
    figures = []
    for aspect in ASPECTS:
        chosen = [i for i, name in enumerate(aspects) if name == aspect]
        if not chosen:
            continue
        every, counts = Agreement(), []
        for i in chosen:
            before = (every.matched, every.missed, every.extra)
            every.add(reference[i][reference[i][:, 5] >= threshold], found[i][found[i][:, 5] >= threshold])
            matched, missed, extra = (every.matched, every.missed, every.extra)
            counts.append((matched - before[0], missed - before[1], extra - before[2]))
        named = [sources[i] for i in chosen]
        lower = f1_lower_bound(counts, named)
        figures.append(AspectFigure(against, tested, aspect, threshold, len(chosen), len(set(named)), every, lower))
    return figures


def print_table(figures: Sequence[AspectFigure], console: Console) -> None:
    """One table for each reference and engine."""
    for against, tested in dict.fromkeys((figure.against, figure.tested) for figure in figures):
        table = Table(title=f"{tested}, by aspect, {against}", title_justify="left")
        columns = ("aspect", "from", "pictures", "sources", "detections", "missed", "extra", "recall", "F1", "F1 lower")
        for column in (*columns, "mean IoU"):
            table.add_column(column, justify="right")
        for row in figures:
            if (row.against, row.tested) == (against, tested):
                a = row.agreement
                numbers = (row.pictures, row.sources, a.reference, a.missed, a.extra)
                values = (row.recall, a.f1, row.f1_lower, a.mean_iou)
                table.add_row(
                    row.aspect, f"{row.threshold:g}", *map(str, numbers), *(f"{value:.3f}" for value in values)
                )
        console.print(table)
    console.print("F1 lower: reached by 95 % of 2000 bootstrap resamples of the source pictures")
