"""Agreement by the pictures' aspect, with how far chance may have helped."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from nudenet_build.evaluation.matching import Agreement

ASPECTS = {"2.4:1": 2.4, "16:9": 16 / 9, "4:3": 4 / 3, "1:1": 1.0, "3:4": 3 / 4, "9:16": 9 / 16}  # width / height
RESAMPLES = 2000
SURE = 0.5  # a detection of the reference that has to be found, if with less confidence
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
    sources_with_detections: int  # of the reference
    largest_share: float  # of the reference's detections that one source gives
    agreement: Agreement
    sure: Agreement  # the reference's from `SURE` up against all that was found from the threshold up
    f1_lower: float  # bootstrap over source pictures, see `f1_lower_bound`; nan for a single source

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "against": self.against,
            "tested": self.tested,
            "aspect": self.aspect,
            "threshold": self.threshold,
            "pictures": self.pictures,
            "sources": self.sources,
            "sources_with_detections": self.sources_with_detections,
            "largest_share": self.largest_share,
            "recall": self.agreement.recall,
            "sure": self.sure.reference,
            "sure_found": self.sure.matched,
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
        every, sure, counts = Agreement(), Agreement(), []
        given: Counter[str] = Counter()
        for i in chosen:
            expected, ours = (rows[rows[:, 5] >= threshold] for rows in (reference[i], found[i]))
            one = Agreement()
            one.add(expected, ours)
            every.join(one)
            counts.append((one.matched, one.missed, one.extra))
            sure.add(expected[expected[:, 5] >= SURE], ours)
            given[sources[i]] += one.reference
        figures.append(
            AspectFigure(
                against=against,
                tested=tested,
                aspect=aspect,
                threshold=threshold,
                pictures=len(chosen),
                sources=len(given),
                sources_with_detections=sum(count > 0 for count in given.values()),
                largest_share=max(given.values()) / every.reference if every.reference else float("nan"),
                agreement=every,
                sure=sure,
                f1_lower=f1_lower_bound(counts, [sources[i] for i in chosen]),
            )
        )
    return figures


def print_table(figures: Sequence[AspectFigure], console: Console) -> None:
    """One table for each reference and engine."""
    for against, tested in dict.fromkeys((figure.against, figure.tested) for figure in figures):
        table = Table(title=f"{tested}, by aspect, {against}", title_justify="left")
        columns = ("aspect", "from", "pictures", "sources", "found", "largest", "missed", "extra", "recall")
        for column in (*columns, "F1", "F1 lower", "sure", "IoU"):
            table.add_column(column, justify="right")
        for row in figures:
            if (row.against, row.tested) == (against, tested):
                a = row.agreement
                table.add_row(
                    row.aspect,
                    f"{row.threshold:g}",
                    str(row.pictures),
                    f"{row.sources_with_detections}/{row.sources}",
                    str(a.reference),
                    f"{row.largest_share:.0%}" if a.reference else "",
                    str(a.missed),
                    str(a.extra),
                    *(f"{value:.3f}" for value in (a.recall, a.f1, row.f1_lower)),
                    f"{row.sure.matched}/{row.sure.reference}",
                    f"{a.mean_iou:.3f}",
                )
        console.print(table)
    console.print(
        "sources: source pictures with detections of the reference, of those that gave pictures; found: detections of "
        "the reference, what the row rests on; largest: part of them that one source gives; F1 lower: reached by "
        f"{100 - LEVEL} % of {RESAMPLES} bootstrap resamples of the source pictures; sure: found of the reference's "
        f"detections from {SURE:g} up; IoU: mean of matched pairs"
    )


def print_classes(
    reference: Sequence[np.ndarray], sources: Sequence[str], names: Sequence[str], console: Console
) -> None:
    """What classes the reference's detections are of, and which have none.

    Args:
        reference: detections [K,6] of each picture.
        sources: of each picture.
        names: of the classes.
    """
    counts: Counter[int] = Counter()
    seen: dict[int, set[str]] = defaultdict(set)
    for rows, source in zip(reference, sources, strict=True):
        for class_id in rows[:, 4].astype(int):
            counts[class_id] += 1
            seen[class_id].add(source)
    table = Table(title="The reference's detections by class", title_justify="left")
    table.add_column("class")
    for column in ("detections", "sources"):
        table.add_column(column, justify="right")
    for class_id, count in counts.most_common():
        table.add_row(names[class_id], str(count), str(len(seen[class_id])))
    console.print(table)
    console.print(f"none of: {', '.join(name for i, name in enumerate(names) if i not in counts) or 'no class'}")
