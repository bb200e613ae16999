"""JPEG to detections in one process, without a server: for bulk runs, benchmarks, accuracy and calibration.

The same functions that the three ``model.py`` call, in the same order. No Triton import.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nudenet_steps.engines import Engine
from nudenet_steps.postprocess import nms
from nudenet_steps.preprocess import cpu_decoder, jpeg, letterbox

MODEL_REPOSITORY = Path(__file__).resolve().parents[3]
ENGINE_FILES = MODEL_REPOSITORY / "nudenet_trt" / "1"
HEIGHT, WIDTH = 180, 320  # pixels of the model input
MAX_BATCH = 8


def labels() -> list[str]:
    """Class names; the index is the class id."""
    return (MODEL_REPOSITORY / "nudenet_postprocess" / "labels.txt").read_text().split()


class Preprocessor:
    """JPEG bytes to model input, one picture at a time. One per thread."""

    def __init__(self, height: int = HEIGHT, width: int = WIDTH, limits: jpeg.Limits | None = None) -> None:
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
        picture = cpu_decoder.read(data, np.empty((3, self.height, self.width), np.float32), self.limits)
        box = picture.box
        least = (box.width, box.height) if scaled else picture.header.upright_size
        self._writer.write(jpeg.decode(data, picture.header, *least), box, picture.out)
        return picture.out, box


class Pipeline:
    """JPEG files to detections in this thread; one per thread.

    Args:
        engine: from `nudenet_steps.engines`.
        max_batch: most pictures in one call of `run`.
        settings: of NMS.
        limits: what is accepted.
        strict: refuse damaged files.
    """

    def __init__(
        self,
        engine: Engine,
        max_batch: int = MAX_BATCH,
        settings: nms.Settings | None = None,
        limits: jpeg.Limits | None = None,
        strict: bool = True,
    ) -> None:
        self._engine = engine
        self._decoder = cpu_decoder.CpuDecoder(HEIGHT, WIDTH, strict, max_batch)
        self._settings, self._limits = settings or nms.Settings(), limits or jpeg.Limits()

    def run(self, files: Sequence[bytes]) -> list[np.ndarray | jpeg.JpegError]:
        """Detections of up to `max_batch` pictures.

        Returns:
            one each: FP32 [K,6] as `nms.detect` answers, or the error that refuses the picture.
        """
        tensor, pictures = self.preprocess(files)
        candidates = self._engine.infer([tensor])
        return [
            picture
            if isinstance(picture, jpeg.JpegError)
            else nms.detect(rows, np.array(picture.box.geometry, np.float32), self._settings)
            for rows, picture in zip(candidates, pictures, strict=True)
        ]

    def preprocess(self, files: Sequence[bytes]) -> tuple[np.ndarray, list[cpu_decoder.Picture | jpeg.JpegError]]:
        """Model input FP32 [n,3,height,width], valid until the next call, and each picture, or why it is refused."""
        tensor = self._decoder.allocate(len(files))
        found: list[cpu_decoder.Picture | jpeg.JpegError] = []
        for data, out in zip(files, tensor, strict=True):
            try:
                found.append(cpu_decoder.read(data, out, self._limits))
            except jpeg.JpegError as error:
                found.append(error)
        self._decoder.decode([picture for picture in found if isinstance(picture, cpu_decoder.Picture)])
        answers = [getattr(picture, "error", None) or picture for picture in found]
        for answer, out in zip(answers, tensor, strict=True):
            if isinstance(answer, jpeg.JpegError):
                out[...] = 0
        return tensor, answers
