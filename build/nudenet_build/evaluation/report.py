"""The figures of `accuracy.py`: which rows are compared with which, the tables, the goals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from nudenet_build.evaluation import by_aspect
from nudenet_build.evaluation.matching import Agreement

FP32 = "FP32, ONNX Runtime"
FP16 = "FP16, ONNX Runtime"
BF16 = "BF16, OpenVINO"
INT8_OPENVINO = "INT8 asymmetric, OpenVINO"
INT8 = "INT8 symmetric, ONNX Runtime"
INT8_FP16 = "INT8 symmetric + FP16, ONNX Runtime"
ON_LARGEST = "FP32, on 320x320 (mixed request to a plan)"
FULL_DECODE = "FP32, full JPEG decode"
NUDENET = "NudeDetector"

GOALS = {FP16: 0.99, INT8: 0.95, INT8_OPENVINO: 0.95, INT8_FP16: 0.95}  # least F1 against FP32

# Of what is served, against NudeDetector from 0.25, in every aspect: F1, its lower bound, the part of the detections
# from 0.5 up that is found, and how many detections a row has to rest on.
ASPECT_F1, ASPECT_F1_LOWER, ASPECT_SURE_FOUND, ASPECT_DETECTIONS = 0.88, 0.85, 0.97, 150

AGAINST_FP32 = "against the FP32 graph"
AGAINST_NUDENET = "against NudeDetector fed RGB"
AGAINST_FULL_DECODE = "against the FP32 graph at full JPEG decode"


@dataclass(frozen=True)
class Figure:
    """One row: `tested` against a reference at one threshold."""

    against: str
    tested: str
    threshold: float
    agreement: Agreement

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "against": self.against,
            "tested": self.tested,
            "threshold": self.threshold,
            **self.agreement.as_dict(),
        }


def agree(reference: Sequence[np.ndarray], tested: Sequence[np.ndarray], threshold: float) -> Agreement:
    """Match detections of the same pictures, those below `threshold` left out on both sides."""
    result = Agreement()
    for expected, found in zip(reference, tested, strict=True):
        result.add(expected[expected[:, 5] >= threshold], found[found[:, 5] >= threshold])
    return result


def compare(detections: Mapping[str, Sequence[np.ndarray]], thresholds: Sequence[float]) -> list[Figure]:
    """All comparisons that `detections` has rows for.

    Args:
        detections: by row name, one [K,6] a picture.
        thresholds: on the confidence.
    """
    figures = []
    engines = [name for name in (FP32, FP16, BF16, INT8_OPENVINO, INT8, INT8_FP16) if name in detections]
    for name in [*engines[1:], *(name for name in (ON_LARGEST, FULL_DECODE) if name in detections)]:
        for threshold in thresholds:
            agreement = agree(detections[FP32], detections[name], threshold)
            figures.append(Figure(AGAINST_FP32, name, threshold, agreement))
    if NUDENET in detections:
        for name in [*engines, FULL_DECODE]:
            for threshold in thresholds:
                agreement = agree(detections[NUDENET], detections[name], threshold)
                figures.append(Figure(AGAINST_NUDENET, name, threshold, agreement))
        for name in (FP32, NUDENET):  # which of the two is nearer to the picture as it is
            for threshold in thresholds:
                agreement = agree(detections[FULL_DECODE], detections[name], threshold)
                figures.append(Figure(AGAINST_FULL_DECODE, name, threshold, agreement))
    return figures


def compare_by_aspect(
    detections: Mapping[str, Sequence[np.ndarray]],
    aspects: Sequence[str],
    sources: Sequence[str],
    thresholds: Sequence[float],
) -> list[by_aspect.AspectFigure]:
    """What is served, by aspect, against all references.

    Args:
        detections: by row name, one [K,6] a picture.
        aspects, sources: of each picture.
        thresholds: on the confidence.
    """
    references = ((AGAINST_NUDENET, NUDENET), (AGAINST_FULL_DECODE, FULL_DECODE), (AGAINST_FP32, FP32))
    return [
        figure
        for tested in (FP32, BF16, INT8_OPENVINO)
        for against, reference in references
        if tested in detections and reference in detections and tested != reference
        for threshold in thresholds
        for figure in by_aspect.compare(
            against, tested, detections[reference], detections[tested], aspects, sources, threshold
        )
    ]


def print_tables(figures: Sequence[Figure], console: Console) -> None:
    """One table for each reference."""
    for against in dict.fromkeys(figure.against for figure in figures):
        table = Table(title=against, title_justify="left")
        table.add_column("tested")
        for column in ("from", "detections", "matched", "missed", "extra", "F1", "mean IoU", "conf. mean", "conf. max"):
            table.add_column(column, justify="right")
        for figure in figures:
            if figure.against == against:
                a = figure.agreement
                table.add_row(
                    figure.tested,
                    f"{figure.threshold:g}",
                    *(str(count) for count in (a.reference, a.matched, a.missed, a.extra)),
                    *(
                        f"{value:.4f}"
                        for value in (a.f1, a.mean_iou, a.mean_confidence_change, a.max_confidence_change)
                    ),
                )
        console.print(table)
    console.print(
        "from: least confidence on both sides; detections: of the reference, what the row rests on; matched: same "
        "class and IoU > 0.5; conf.: absolute change of the confidence over matched pairs"
    )


def missed_goals(figures: Sequence[Figure]) -> list[str]:
    """Goals against FP32 that were not met, one sentence each."""
    return [
        f"{figure.tested} from {figure.threshold:g}: F1 {figure.agreement.f1:.4f}, goal {GOALS[figure.tested]:g}"
        for figure in figures
        if figure.against == AGAINST_FP32 and figure.agreement.f1 < GOALS.get(figure.tested, 0)
    ]


def missed_aspect_goals(figures: Sequence[by_aspect.AspectFigure]) -> list[str]:
    """Goals by aspect that were not met or could not be judged, one sentence each."""
    missed = []
    for row in figures:
        if row.against != AGAINST_NUDENET or row.threshold != min(figure.threshold for figure in figures):
            continue
        if row.agreement.reference < ASPECT_DETECTIONS:
            missed.append(
                f"{row.tested}, {row.aspect}: {row.agreement.reference} detections decide nothing, "
                f"{ASPECT_DETECTIONS} are needed"
            )
            continue
        for what, value, goal in (
            ("F1", row.agreement.f1, ASPECT_F1),
            ("lower bound of F1", row.f1_lower, ASPECT_F1_LOWER),
            ("found of those from 0.5", row.sure.recall, ASPECT_SURE_FOUND),
        ):
            if not value >= goal:  # nan, too: there is no evidence
                missed.append(f"{row.tested}, {row.aspect}: {what} {value:.4g}, goal {goal:g}")
    return missed
