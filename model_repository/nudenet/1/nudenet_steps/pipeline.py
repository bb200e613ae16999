"""JPEG to detections in one process, without a server: for bulk runs, benchmarks, accuracy and calibration.

The same functions that the three ``model.py`` call, in the same order. No Triton import.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from nudenet_steps.engines import Engine, groups
from nudenet_steps.postprocess import nms
from nudenet_steps.preprocess import cpu_decoder, jpeg, letterbox
from nudenet_steps.preprocess.canvas import CANVASES, Canvas, smallest

MODEL_REPOSITORY = Path(__file__).resolve().parents[3]
ENGINE_FILES = MODEL_REPOSITORY / "nudenet_trt" / "1"
MAX_BATCH = 8


def labels() -> list[str]:
    """Class names; the index is the class id."""
    return (MODEL_REPOSITORY / "nudenet_postprocess" / "labels.txt").read_text().split()


class Preprocessor:
    """JPEG bytes to model input, one picture at a time. One per thread.

    Args:
        canvases: which to choose from.
        limits: what is accepted.
    """

    def __init__(self, canvases: Sequence[Canvas] = CANVASES, limits: jpeg.Limits | None = None) -> None:
        self.canvases = tuple(canvases)
        self.limits = limits or jpeg.Limits()
        self._writer = letterbox.Writer()

    def __call__(self, data: bytes, scaled: bool = True) -> tuple[np.ndarray, letterbox.Letterbox]:
        """Preprocess one picture.

        Args:
            data: a JPEG file.
            scaled: False decodes at full size, to measure what the scaled decode changes.

        Returns:
            UINT8 [3,height,width], RGB, of the picture's canvas, and where the picture lies in it.

        Raises:
            jpeg.JpegError: refused, see its message.
        """
        header = cpu_decoder.read(data, self.limits)
        canvas = smallest([header.upright_size], self.canvases)
        box = letterbox.fit(*header.upright_size, canvas)
        least = (box.width, box.height) if scaled else header.upright_size
        out = np.empty((3, *canvas), np.uint8)
        self._writer.write(jpeg.decode(data, header, *least), box, out)
        return out, box


class Pipeline:
    """JPEG files to detections in this thread; one per thread.

    Args:
        engine: from `nudenet_steps.engines`.
        max_batch: most pictures in one call of `run`.
        settings: of NMS.
        limits: what is accepted.
        strict: refuse damaged files.
        canvases: which the engine serves.
    """

    def __init__(
        self,
        engine: Engine,
        max_batch: int = MAX_BATCH,
        settings: nms.Settings | None = None,
        limits: jpeg.Limits | None = None,
        strict: bool = True,
        canvases: Sequence[Canvas] = CANVASES,
    ) -> None:
        self._engine = engine
        self._decoder = cpu_decoder.CpuDecoder(strict, max_batch)
        self._settings, self._limits = settings or nms.Settings(), limits or jpeg.Limits()
        self._canvases = tuple(canvases)

    def run(
        self, files: Sequence[bytes], look: Callable[[int, np.ndarray, np.ndarray], None] | None = None
    ) -> list[np.ndarray | jpeg.JpegError]:
        """Detections of up to `max_batch` pictures; each is worked on alone, on its own canvas.

        Args:
            files: JPEG files.
            look: called with the index, candidates FP32 [N,6] and geometry FP32 [4] of each accepted picture.

        Returns:
            one each: FP32 [K,6] as `nms.detect` answers, or the error that refuses the picture.
        """
        parts, pictures = self.preprocess(files)
        answers: list = list(pictures)
        for group in groups(parts):
            good = [i for i in group if isinstance(pictures[i], cpu_decoder.Picture)]
            candidates = self._engine.infer([parts[i] for i in good]) if good else ()
            for i, rows in zip(good, candidates, strict=True):
                geometry = np.array(answers[i].box.geometry, np.float32)
                if look is not None:
                    look(i, rows, geometry)
                answers[i] = nms.detect(rows, geometry, self._settings)
        return answers

    def preprocess(self, files: Sequence[bytes]) -> tuple[list[np.ndarray], list[cpu_decoder.Picture | jpeg.JpegError]]:
        """Model inputs UINT8 [1,3,height,width], valid until the next call, and each picture, or why it is refused."""
        parts: list[np.ndarray] = []
        found: list[cpu_decoder.Picture | jpeg.JpegError] = []
        for data in files:
            tensor, pictures = cpu_decoder.lay_out([data], self._limits, self._decoder, self._canvases)
            parts.append(tensor)
            found.append(pictures[0])
        self._decoder.decode([picture for picture in found if isinstance(picture, cpu_decoder.Picture)])
        return parts, [getattr(picture, "error", None) or picture for picture in found]
