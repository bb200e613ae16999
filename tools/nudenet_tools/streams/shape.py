"""How players show a decoded frame: on white, with square pixels, turned and mirrored as its display matrix says."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type

_WIDEST = 4  # times as wide as high, or as high as wide: another pixel is none
PLAIN = (False, False, False)


def turn(matrix: np.ndarray | None) -> tuple[bool, bool, bool]:
    """What to do with the stored picture: (swap rows and columns, then mirror left-right, then upside down).

    Args:
        matrix: INT32 [9], FFmpeg's display matrix; the nearest of the eight turns without shearing is taken.
    """
    if matrix is None:
        return PLAIN
    a, b, _, c, d = (int(value) for value in matrix[:5])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, a < 0, d < 0
    return True, c < 0, b < 0


def is_plain(frame: av.VideoFrame, pixel_aspect: Fraction | None) -> bool:
    """Whether players show the frame as it is stored."""
    return turn(_matrix(frame)) == PLAIN and _square_size(frame, pixel_aspect) == (frame.width, frame.height)


def pixels(frame: av.VideoFrame, pixel_aspect: Fraction | None) -> np.ndarray:
    """RGB uint8 [h,w,3], C-contiguous.

    Args:
        pixel_aspect: width of a stored pixel over its height; None or 0 where it is unknown.
    """
    width, height = _square_size(frame, pixel_aspect)
    if any(component.is_alpha for component in frame.format.components):
        found = _on_white(frame.to_ndarray(format="rgba", width=width, height=height))
    else:
        found = frame.to_ndarray(format="rgb24", width=width, height=height)
    swap, mirror, upside_down = turn(_matrix(frame))
    if swap:
        found = found.transpose(1, 0, 2)
    if mirror:
        found = found[:, ::-1]
    if upside_down:
        found = found[::-1]
    return np.ascontiguousarray(found)


def _on_white(rgba: np.ndarray) -> np.ndarray:
    """As a page without a background shows it."""
    alpha = rgba[..., 3:].astype(np.uint16)
    return ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _square_size(frame: av.VideoFrame, pixel_aspect: Fraction | None) -> tuple[int, int]:
    """Width and height with square pixels; never smaller than stored."""
    aspect = pixel_aspect or Fraction(1)
    if not Fraction(1, _WIDEST) <= aspect <= _WIDEST:
        return frame.width, frame.height
    return max(frame.width, round(frame.width * aspect)), max(frame.height, round(frame.height / aspect))


def _matrix(frame: av.VideoFrame) -> np.ndarray | None:
    side_data: Any = frame.side_data  # iterates over its values, which its type does not say
    for data in side_data:
        if data.type == Type.DISPLAYMATRIX:
            return np.frombuffer(bytes(data), np.int32)
    return None
