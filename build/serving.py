"""The serving steps of the model repository, importable by the scripts of this folder.

The repository is mounted alone into a container, so the modules live there; nothing here is a copy of them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent / "model_repository"
for _model in ("nudenet_preprocess", "nudenet_trt", "nudenet_postprocess"):
    sys.path.insert(0, str(REPOSITORY / _model / "1"))

import decoder  # noqa: E402
import engine  # noqa: E402
import jpeg  # noqa: E402
import letterbox  # noqa: E402
import nms  # noqa: E402

__all__ = ["Preprocessor", "engine", "jpeg", "labels", "letterbox", "nms"]


class Preprocessor:
    """JPEG bytes to model input, step by step as ``nudenet_preprocess`` does it. One per thread."""

    def __init__(self, height: int, width: int, limits: jpeg.Limits | None = None) -> None:
        self.height, self.width = height, width
        self.limits = limits or jpeg.Limits()
        self._writer = letterbox.Writer(height, width)

    def __call__(self, data: bytes, scaled: bool = True) -> tuple[np.ndarray, letterbox.Letterbox]:
        """Preprocess one picture.

        Args:
            data: a JPEG file.
            scaled: False decodes at full size, to measure what the scaled decode changes.

        Returns:
            FP32 [3,height,width], RGB in [0,1], and where the picture lies in it.

        Raises:
            jpeg.JpegError: refused, see its message.
        """
        picture = decoder.read(data, np.empty((3, self.height, self.width), np.float32), self.limits)
        box = picture.box
        least = (box.width, box.height) if scaled else picture.header.upright_size
        self._writer.write(jpeg.decode(data, picture.header, *least), box, picture.out)
        return picture.out, box


def labels() -> list[str]:
    """Class names; the index is the class id."""
    return (REPOSITORY / "nudenet_postprocess" / "labels.txt").read_text().split()
