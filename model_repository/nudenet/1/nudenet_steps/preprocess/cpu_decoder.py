"""From JPEG files to model input: what all decoders share, and the one on the CPU. No Triton import."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import numpy as np

from nudenet_steps.preprocess import jpeg, letterbox
from nudenet_steps.preprocess.canvas import CANVASES, LARGEST, Canvas, smallest


@dataclass
class Picture:
    """One JPEG file on its way into the tensor. `decode` of a decoder fills `out` or sets `error`."""

    data: bytes
    header: jpeg.Header
    box: letterbox.Letterbox
    out: np.ndarray  # UINT8 or FP32 [3,height,width], C-contiguous
    error: jpeg.JpegError | None = field(default=None)


class Decoder(Protocol):
    """What preprocessing asks of a decoder."""

    def allocate(self, count: int, canvas: Canvas) -> np.ndarray:
        """Memory for `count` pictures: the next `decode` fills it, the one after may write over it.

        Returns:
            [count,3,height,width], not initialised.
        """

    def decode(self, pictures: Sequence[Picture]) -> None:
        """Fill ``out`` of every picture, or set its ``error``; one bad picture does not touch the others."""

    def gpu_tensor(self, tensor: np.ndarray) -> Any:
        """A DLPack capsule of the same pixels in GPU memory; None where there is none."""


def read(data: bytes | jpeg.JpegError, limits: jpeg.Limits) -> jpeg.Header:
    """Check one file by its headers; nothing is decoded yet.

    Args:
        data: the file, or the error that refuses it already.

    Raises:
        JpegError: refused, see its message.
    """
    if isinstance(data, jpeg.JpegError):
        raise data
    try:
        jpeg.check_size(data, limits)
        header = jpeg.read_header(data)
        jpeg.check_limits(header, limits)
    except jpeg.JpegError:
        raise
    except Exception as error:  # nobody thought of it: this picture's trouble, not its neighbours'
        raise jpeg.JpegError("internal", f"reading failed: {error!r}") from error
    return header


def lay_out(
    files: Sequence[bytes | jpeg.JpegError],
    limits: jpeg.Limits,
    decoder: Decoder,
    canvases: Sequence[Canvas] = CANVASES,
) -> tuple[np.ndarray, list[Picture | jpeg.JpegError]]:
    """Check the files of one request and give them one tensor, on the smallest canvas that holds them all.

    Args:
        files: JPEG files, or the errors that refuse them already.
        limits: what is accepted.
        decoder: gives the memory, and decodes later.
        canvases: which are served.

    Returns:
        the tensor [n,3,height,width], not filled yet, and for each file a picture to decode or why it is refused.
    """
    headers: list[jpeg.Header | jpeg.JpegError] = []
    for data in files:
        try:
            headers.append(read(data, limits))
        except jpeg.JpegError as error:
            headers.append(error)
    canvas = smallest([one.upright_size for one in headers if isinstance(one, jpeg.Header)], canvases)
    tensor = decoder.allocate(len(files), canvas)
    pictures: list[Picture | jpeg.JpegError] = [
        header
        if isinstance(header, jpeg.JpegError)
        else Picture(cast(bytes, data), header, letterbox.fit(*header.upright_size, canvas), out)
        for data, header, out in zip(files, headers, tensor, strict=True)
    ]
    return tensor, pictures


class CpuDecoder:
    """libjpeg-turbo, scaled while decoding. Takes every picture that `jpeg.read_header` accepts.

    Args:
        strict: refuse damaged files.
        max_batch: pictures that fit into the memory that is kept.
        dtype: of the model input: UINT8 0..255, or FP32 in [0,1].
    """

    def __init__(self, strict: bool, max_batch: int = 8, dtype: type = np.uint8) -> None:
        self._writer = letterbox.Writer()
        self._strict = strict
        # Pages once touched stay, and stay in the cache.
        self._memory: np.ndarray = np.zeros(max_batch * 3 * LARGEST.area, dtype)
        self._used = 0

    def allocate(self, count: int, canvas: Canvas) -> np.ndarray:
        """Memory for `count` pictures: the next `decode` fills it, the one after may write over it.

        Returns:
            [count,3,height,width], not initialised.
        """
        shape, size = (count, 3, *canvas), count * 3 * canvas.area
        if self._used + size > len(self._memory):
            return np.empty(shape, self._memory.dtype)
        self._used += size
        return self._memory[self._used - size : self._used].reshape(shape)

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
        """Pictures are in host memory only; see `gpu_decoder.GpuDecoder.gpu_tensor`."""
