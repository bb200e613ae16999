"""From a checked header to model input: what all decoders share, and the one on the CPU. No Triton import."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from nudenet_steps.preprocess import jpeg, letterbox


@dataclass
class Picture:
    """One JPEG file on its way into the tensor. `decode` of a decoder fills `out` or sets `error`."""

    data: bytes
    header: jpeg.Header
    box: letterbox.Letterbox
    out: np.ndarray  # FP32 [3,height,width], C-contiguous
    error: jpeg.JpegError | None = field(default=None)


def read(data: bytes, out: np.ndarray, limits: jpeg.Limits) -> Picture:
    """Check one file by its headers and lay it out for `out`, FP32 [3,height,width]; nothing is decoded yet.

    Raises:
        JpegError: refused, see its message.
    """
    try:
        jpeg.check_size(data, limits)
        header = jpeg.read_header(data)
        jpeg.check_limits(header, limits)
    except jpeg.JpegError:
        raise
    except Exception as error:  # nobody thought of it: this picture's trouble, not its neighbours'
        raise jpeg.JpegError("internal", f"reading failed: {error!r}") from error
    _, height, width = out.shape
    return Picture(data, header, letterbox.fit(*header.upright_size, width, height), out)


class CpuDecoder:
    """libjpeg-turbo, scaled while decoding. Takes every picture that `jpeg.read_header` accepts."""

    def __init__(self, height: int, width: int, strict: bool, max_batch: int = 8) -> None:
        self._writer = letterbox.Writer(height, width)
        self._shape = (3, height, width)
        self._strict = strict
        self._memory = np.zeros((max_batch, *self._shape), np.float32)  # pages once touched stay, and stay in the cache
        self._used = 0

    def allocate(self, count: int) -> np.ndarray:
        """Memory for `count` pictures, FP32 [count,3,height,width], not initialised; taken back by `decode`."""
        if self._used + count > len(self._memory):
            return np.empty((count, *self._shape), np.float32)
        self._used += count
        return self._memory[self._used - count : self._used]

    def decode(self, pictures: Sequence[Picture]) -> None:
        """Fill ``out`` of every picture, or set its ``error``; one bad picture does not touch the others."""
        self._used = 0
        for picture in pictures:
            header, box = picture.header, picture.box
            try:
                pixels = jpeg.decode(picture.data, header, box.width, box.height, self._strict)
                self._writer.write(pixels, box, picture.out)
            except jpeg.JpegError as error:
                picture.error = error
            except Exception as error:  # out of memory, say: this picture's trouble, not its neighbours'
                picture.error = jpeg.JpegError("internal", f"decoding failed: {error!r}")

    def gpu_tensor(self, tensor: np.ndarray) -> None:
        """Pictures are in host memory only; see `nvjpeg.GpuDecoder.gpu_tensor`."""
