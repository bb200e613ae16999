"""Geometry between source pixels and model input, and the write into the model's tensor. Pure numpy and OpenCV.

The picture keeps its aspect, sits in the top left corner and is padded with black at the bottom or right,
as NudeNet does it.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from nudenet_steps.preprocess.canvas import LARGEST, LONGER_SIDE, Canvas

TO_UNIT = np.float32(1 / 255)  # what makes FP32 `input` of UINT8 `pixels`


class Letterbox(NamedTuple):
    """Where a source picture lies in the model input; all sizes in pixels."""

    source_width: int
    source_height: int
    width: int
    height: int

    @property
    def geometry(self) -> tuple[float, float, float, float]:
        """x scale, y scale (source pixels per model pixel), source width, source height."""
        return (
            self.source_width / self.width,
            self.source_height / self.height,
            float(self.source_width),
            float(self.source_height),
        )


def fit(source_width: int, source_height: int, canvas: Canvas) -> Letterbox:
    """The largest size with the source's aspect that fits the canvas; at least 1x1 pixel.

    To a pixel: where a canvas holds the picture at NudeNet's scale, it has the size that it has on every such canvas.
    """
    scale = min(canvas.width / source_width, canvas.height / source_height)
    if max(canvas) == LONGER_SIDE and canvas.holds(source_width, source_height):
        scale = LONGER_SIDE / max(source_width, source_height)
    return Letterbox(
        source_width,
        source_height,
        min(canvas.width, max(1, round(source_width * scale))),
        min(canvas.height, max(1, round(source_height * scale))),
    )


def _interpolation(pixels: np.ndarray, box: Letterbox) -> int:
    """Bilinear, as NudeNet does it, up to twofold reduction; beyond it would skip pixels, so areas are averaged."""
    height, width = pixels.shape[:2]
    is_larger = height < box.height or width < box.width
    is_slight = height < 2 * box.height and width < 2 * box.width
    return cv2.INTER_LINEAR if is_larger or is_slight else cv2.INTER_AREA


class Writer:
    """Writes pictures into [3,height,width] tensors; owns the scratch memory for it, so one per thread."""

    def __init__(self) -> None:
        self._scratch = np.zeros(3 * LARGEST.area, np.uint8)

    def write(self, pixels: np.ndarray, box: Letterbox, out: np.ndarray) -> None:
        """Resize to `box`, pad with black; into FP32 also scale to [0,1].

        Args:
            pixels: RGB uint8 [h,w,3], any size.
            box: from `fit` for the same picture.
            out: UINT8 or FP32 [3,height,width], C-contiguous; every element is written.
        """
        if pixels.shape[:2] != (box.height, box.width):
            pixels = cv2.resize(pixels, (box.width, box.height), interpolation=_interpolation(pixels, box))
        inside = out[:, : box.height, : box.width]
        out[:, box.height :] = 0
        out[:, : box.height, box.width :] = 0
        if out.dtype == np.uint8:
            cv2.split(pixels, list(inside))
        else:
            planes = self._planes(box.height, box.width)
            cv2.split(pixels, list(planes))
            np.multiply(planes, TO_UNIT, out=inside)

    def _planes(self, height: int, width: int) -> np.ndarray:
        """Scratch memory UINT8 [3,height,width]; grows for inputs beyond the largest canvas."""
        size = 3 * height * width
        if size > len(self._scratch):
            self._scratch = np.zeros(size, np.uint8)
        return self._scratch[:size].reshape(3, height, width)
