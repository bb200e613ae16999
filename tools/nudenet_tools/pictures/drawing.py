"""Detections onto pictures: boxes with names, or areas made unrecognisable. Pixels are RGB uint8 [h,w,3] everywhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from enum import StrEnum

import numpy as np

from nudenet_client import Detections

# What most people mean by nudity; any other set of labels may be asked for.
CENSORED_BY_DEFAULT = (
    "BUTTOCKS_EXPOSED",
    "FEMALE_BREAST_EXPOSED",
    "FEMALE_GENITALIA_EXPOSED",
    "MALE_GENITALIA_EXPOSED",
    "ANUS_EXPOSED",
)


class Style(StrEnum):
    """How an area is made unrecognisable."""

    blur = "blur"
    pixelate = "pixelate"
    fill = "fill"


@dataclasses.dataclass(frozen=True)
class Caption:
    """A line of text in ASCII on a background of one colour, RGB."""

    text: str
    colour: tuple[int, int, int]


def annotate(pixels: np.ndarray, detections: Detections) -> None:
    """Draw a box, the label and the confidence of every detection into `pixels`."""
    import supervision  # a second of imports that plain detection need not pay

    size = (pixels.shape[1], pixels.shape[0])
    found = detections.to_supervision()
    thickness = supervision.calculate_optimal_line_thickness(size)
    supervision.BoxAnnotator(thickness=thickness).annotate(pixels, found)
    scale = supervision.calculate_optimal_text_scale(size)
    supervision.LabelAnnotator(text_scale=scale, text_thickness=max(1, thickness // 2), smart_position=True).annotate(
        pixels, found, labels=[f"{d.label} {d.confidence:.2f}" for d in detections]
    )


def censor(pixels: np.ndarray, detections: Detections, style: Style) -> None:
    """Make the inside of every box in `pixels` unrecognisable; boxes are widened to whole pixels."""
    import supervision

    boxes = np.concatenate([np.floor(detections.boxes[:, :2]), np.ceil(detections.boxes[:, 2:])], axis=1)
    found = dataclasses.replace(detections, boxes=boxes).to_supervision()
    if style is Style.fill:
        supervision.ColorAnnotator(supervision.Color.BLACK, opacity=1).annotate(pixels, found)
    elif style is Style.pixelate:
        supervision.PixelateAnnotator().annotate(pixels, found)
    else:
        supervision.BlurAnnotator().annotate(pixels, found)


def write(pixels: np.ndarray, captions: Sequence[Caption]) -> None:
    """Write lines into `pixels` from the upper left corner down."""
    if not captions:
        return
    import cv2
    import supervision

    size = (pixels.shape[1], pixels.shape[0])
    scale = supervision.calculate_optimal_text_scale(size)
    thickness = max(1, supervision.calculate_optimal_line_thickness(size) // 2)
    top = 0
    for caption in captions:
        (width, height), below = cv2.getTextSize(caption.text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
        bottom = top + 2 * height + below
        cv2.rectangle(pixels, (0, top), (width + height, bottom - 1), caption.colour, cv2.FILLED)
        cv2.putText(
            pixels,
            caption.text,
            (height // 2, top + height + height // 2),
            cv2.FONT_HERSHEY_SIMPLEX,
            scale,
            (255, 255, 255),
            thickness,
            cv2.LINE_AA,
        )
        top = bottom
