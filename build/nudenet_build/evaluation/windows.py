"""Windows of a picture in every aspect, as a fixed list: evidence by aspect from few source pictures.

Nothing is enlarged, reduced or disturbed: a window is cut from the full-size picture and encoded once more, so what is
compared is how each side scales it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nudenet_build.evaluation.by_aspect import ASPECTS
from nudenet_build.jpeg_files import encode_jpeg

SCALES = (1.0, 0.8, 0.64, 0.5)  # of the largest window of the aspect that the picture holds
# Where a window lies in the room it has, 0 left or top, 1 right or bottom. The middle comes first, then the corners.
PLACES = ((0.5, 0.5), (0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.5, 0.0), (0.5, 1.0), (0.0, 0.5), (1.0, 0.5))
LEAST = 256  # pixels of a window's longer side
QUALITY = 90


@dataclass(frozen=True)
class Window:
    """A part of a picture, in its pixels."""

    x: int
    y: int
    width: int
    height: int


def windows_of(width: int, height: int, aspect: float) -> list[Window]:
    """The windows of `aspect` (width / height) in a picture, largest first, none twice."""
    largest = min(width, height * aspect)
    found: dict[Window, None] = {}
    for scale in SCALES:
        w, h = round(largest * scale), round(largest * scale / aspect)
        if max(w, h) >= LEAST:
            for x, y in PLACES:
                found[Window(round((width - w) * x), round((height - h) * y), w, h)] = None
    return list(found)


def cut(pixels: np.ndarray, aspect: str) -> Iterator[bytes]:
    """JPEG files of the windows of one aspect.

    Args:
        pixels: the whole picture, RGB uint8 [h,w,3].
        aspect: a name in `ASPECTS`.
    """
    height, width = pixels.shape[:2]
    for window in windows_of(width, height, ASPECTS[aspect]):
        part = pixels[window.y : window.y + window.height, window.x : window.x + window.width]
        yield encode_jpeg(part, QUALITY)
