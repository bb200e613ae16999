"""The sizes that the detector's input may have, and which of them a picture takes. Pure Python.

NudeNet scales a picture until its longer side has 320 pixels. A canvas is an input size that holds pictures of some
aspects at this scale: a portrait picture needs another one than a 16:9 frame, and a square would hold everything at
1.7 times the cost. To add a canvas, add it to `CANVASES`: preprocessing, engines, export, calibration and compilers
read it from here. docs/canvases.md has what each costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

LONGER_SIDE = 320  # pixels of a scaled picture's longer side, NudeNet's own


class Canvas(NamedTuple):
    """An input size in pixels."""

    height: int
    width: int

    @property
    def area(self) -> int:
        """In pixels."""
        return self.height * self.width

    def holds(self, width: int, height: int) -> bool:
        """Whether a source picture of this size fits with its longer side at 320 pixels, to half a pixel."""
        scale = LONGER_SIDE / max(width, height)
        return round(width * scale) <= self.width and round(height * scale) <= self.height


SPECIFIED = Canvas(180, 320)  # the one of nudenet_trt/config.pbtxt: 16:9 and wider
CANVASES = (
    SPECIFIED,
    Canvas(320, 180),  # 9:16 and narrower: telephones held upright
    Canvas(256, 320),  # 4:3, 3:2 and 5:4: the network's stride of 32 makes 240 rows cost as much as 256
    Canvas(320, 256),
    Canvas(320, 320),
)
# One that every canvas fits into: what memory and tables are made for.
LARGEST = Canvas(max(canvas.height for canvas in CANVASES), max(canvas.width for canvas in CANVASES))


def smallest(sizes: Iterable[tuple[int, int]], canvases: Sequence[Canvas] = CANVASES) -> Canvas:
    """The canvas of least area that holds all pictures at NudeNet's scale.

    Where none does, the one that holds them at the largest scale: with 180x320 alone, 180x320.

    Args:
        sizes: (width, height) of each source picture, upright, in pixels; without any the first canvas is taken.
        canvases: which are served, at least one.
    """
    return _smallest(frozenset(sizes), tuple(canvases))


@lru_cache(maxsize=1024)  # cameras send the same sizes again and again
def _smallest(sizes: frozenset[tuple[int, int]], canvases: tuple[Canvas, ...]) -> Canvas:
    if not sizes:
        return canvases[0]

    def rank(canvas: Canvas) -> tuple[bool, float, int]:
        if all(canvas.holds(*size) for size in sizes):
            return (False, 0.0, canvas.area)
        least = min(min(canvas.width / w, canvas.height / h) * max(w, h) for w, h in sizes)
        return (True, -least, canvas.area)

    return min(canvases, key=rank)


def served(dims: Sequence[int]) -> tuple[Canvas, ...]:
    """The canvases that a configuration serves.

    Args:
        dims: of the detector's input: [3,-1,-1] serves all of `CANVASES`, [3,height,width] that one.

    Raises:
        ValueError: another size, or one side open.
    """
    _, height, width = dims
    if (height, width) == (-1, -1):
        return CANVASES
    if (height, width) not in CANVASES:
        known = ", ".join(f"[ 3, {canvas.height}, {canvas.width} ]" for canvas in CANVASES)
        raise ValueError(
            f"dims {list(dims)} of the detector's input: give [ 3, -1, -1 ] for all canvases, or one of {known}; "
            "a new one is added in nudenet_steps/preprocess/canvas.py"
        )
    return (Canvas(height, width),)
