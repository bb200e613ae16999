"""What callers hold as a picture, to the JPEG bytes that the server takes."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TypeAlias

import numpy as np
import simplejpeg
from PIL import Image, ImageOps

from .errors import PictureError

# A JPEG file's bytes, the path of a picture file, RGB uint8 [h,w,3], or a Pillow image.
Picture: TypeAlias = bytes | bytearray | memoryview | str | os.PathLike | np.ndarray | Image.Image

JPEG_QUALITY = 95
_JPEG_START = b"\xff\xd8\xff"
_ORIENTATION_TAG = 0x0112


def to_jpeg(picture: Picture) -> bytes:
    """The JPEG file to send.

    Bytes go as they are. So does a file that is a JPEG, or that Pillow cannot read either: then the server says
    what is wrong with it. PNG, WebP and other single pictures are encoded as JPEG, upright.

    Args:
        picture: see `Picture`; arrays are RGB uint8 [h,w,3], upright.

    Raises:
        PictureError: the file cannot be read, or the array has another type or shape.
    """
    if isinstance(picture, (bytes, bytearray, memoryview)):
        return bytes(picture)
    if isinstance(picture, (str, os.PathLike)):
        return _read_file(Path(picture))
    if isinstance(picture, Image.Image):
        return _encode(_upright_rgb(picture))
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
            raise PictureError(f"an array must be RGB uint8 [h,w,3], got {picture.dtype} {list(picture.shape)}")
        return _encode(picture)
    raise PictureError(f"a picture is bytes, a path, an array or a Pillow image, got {type(picture).__name__}")


def upright_size(data: bytes) -> tuple[int, int]:
    """(width, height) in pixels of a JPEG file as viewers show it, from its headers; (0, 0) where unreadable."""
    try:
        width, height, _ = _header(data)
    except (OSError, ValueError, Image.DecompressionBombError):
        return 0, 0
    return (height, width) if _orientation(data) >= 5 else (width, height)


def upright_pixels(data: bytes) -> np.ndarray:
    """Decode at full size.

    Args:
        data: a JPEG file.

    Returns:
        RGB uint8 [h,w,3] as viewers show the picture; writable.

    Raises:
        PictureError: it cannot be decoded.
    """
    try:
        if _orientation(data) == 1 and _header(data)[2] in ("YCbCr", "Gray"):
            return simplejpeg.decode_jpeg(data, "RGB")  # twice as fast
        with Image.open(io.BytesIO(data)) as opened:
            return np.array(_upright_rgb(opened))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise PictureError(str(error)) from error


def _header(data: bytes) -> tuple[int, int, str]:
    """Stored width, height and colour space; raises what simplejpeg and Pillow do where unreadable."""
    try:
        height, width, colour_space, _ = simplejpeg.decode_jpeg_header(data)
    except KeyError:  # simplejpeg 1.9 has no name for 4:4:1
        with Image.open(io.BytesIO(data)) as opened:
            return *opened.size, opened.mode
    return width, height, colour_space


def _read_file(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PictureError(f"cannot be read: {error.strerror}") from error
    if data.startswith(_JPEG_START):
        return data
    try:
        with Image.open(io.BytesIO(data)) as opened:
            # Of an animation only the first picture would be looked at: the server may refuse it instead.
            return data if getattr(opened, "n_frames", 1) > 1 else _encode(_upright_rgb(opened))
    except (OSError, ValueError, Image.DecompressionBombError):
        return data


def _upright_rgb(picture: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(picture).convert("RGB")


def _encode(pixels: np.ndarray | Image.Image) -> bytes:
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), JPEG_QUALITY, "RGB", "420")


def _orientation(data: bytes) -> int:
    if b"Exif\0\0" not in data[:65536]:  # the usual case, without Pillow
        return 1
    try:
        with Image.open(io.BytesIO(data)) as opened:
            return int(opened.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # Pillow raises many kinds on hostile EXIF; the server then takes the picture as stored
        return 1
