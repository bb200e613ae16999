#!/usr/bin/env python3
"""Make moving test clips out of a still picture: a window wanders over it."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import av
import numpy as np
import typer
from PIL import Image

from nudenet_tools import ROOT

PICTURE = ROOT / "tests" / "data" / "astronaut_720p.jpg"
_MARGIN = 1.15  # of the picture beyond the window, so that there is room to wander


def write(
    target: Path, picture: Path = PICTURE, seconds: float = 5.0, fps: int = 30, width: int = 1280, height: int = 720
) -> int:
    """Write one clip: MJPEG for .avi and .mjpeg, else H.264.

    Returns:
        how many frames it has.
    """
    with Image.open(picture) as opened:
        large = np.asarray(opened.convert("RGB").resize((round(width * _MARGIN), round(height * _MARGIN))))
    free_y, free_x = large.shape[0] - height, large.shape[1] - width
    mjpeg = target.suffix in (".avi", ".mjpeg")
    count = round(seconds * fps)
    with av.open(str(target), "w") as container:
        stream = container.add_stream("mjpeg" if mjpeg else "libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuvj420p" if mjpeg else "yuv420p"
        stream.options = {"qmin": "3", "qmax": "3"} if mjpeg else {"preset": "ultrafast"}
        for i in range(count):
            phase = 2 * math.pi * i / (4 * fps)  # once around in four seconds
            x, y = round(free_x * (1 - math.cos(phase)) / 2), round(free_y * (1 - math.sin(phase)) / 2)
            window = np.ascontiguousarray(large[y : y + height, x : x + width])
            frame = av.VideoFrame.from_ndarray(window, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return count


def main(
    target: Annotated[Path, typer.Argument(help="What to write: .mp4, .mkv (H.264) or .avi, .mjpeg (MJPEG).")],
    picture: Annotated[Path, typer.Option(help="The still picture.")] = PICTURE,
    seconds: float = 5.0,
    fps: int = 30,
) -> None:
    """Write a 1280x720 test clip."""
    target.parent.mkdir(parents=True, exist_ok=True)
    print(f"{target}: {write(target, picture, seconds, fps)} frames")


if __name__ == "__main__":
    typer.run(main)
