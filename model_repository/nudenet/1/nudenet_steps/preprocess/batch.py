"""One request on its way through preprocessing: its pictures, and what became of each. No Triton import."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nudenet_steps.preprocess import cpu_decoder, jpeg


@dataclass
class Batch:
    """The files of one request, by element."""

    report: bool  # on_error=report
    tensor: np.ndarray  # UINT8 or FP32 [n,3,height,width]
    pictures: dict[int, cpu_decoder.Picture]
    errors: dict[int, jpeg.JpegError]

    @classmethod
    def of(cls, report: bool, tensor: np.ndarray, found: Sequence[cpu_decoder.Picture | jpeg.JpegError]) -> Batch:
        """What `cpu_decoder.lay_out` has found."""
        pictures = {i: one for i, one in enumerate(found) if isinstance(one, cpu_decoder.Picture)}
        return cls(report, tensor, pictures, {i: one for i, one in enumerate(found) if isinstance(one, Exception)})

    def collect_errors(self) -> None:
        """Take over the errors of decoding."""
        self.errors |= {i: one.error for i, one in self.pictures.items() if one.error is not None}

    def outputs(self) -> tuple[np.ndarray, np.ndarray]:
        """Blacken what failed.

        Returns:
            geometry FP32 [n,4] as `nms.detect` takes it, all zero where the picture failed, and the reasons
            BYTES [n,1], empty where it did not.
        """
        geometry, reasons = [(0.0,) * 4] * len(self.tensor), [(b"",)] * len(self.tensor)
        for i, picture in self.pictures.items():
            geometry[i] = picture.box.geometry
        for i, error in self.errors.items():
            self.tensor[i], geometry[i], reasons[i] = 0, (0.0,) * 4, (str(error).encode(),)
        return np.array(geometry, np.float32), np.array(reasons, np.object_)
