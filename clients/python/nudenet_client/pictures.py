"""What callers hold as a picture, to the JPEG bytes that the server takes; and JPEG bytes to pixels."""

from __future__ import annotations

import io
import itertools
import os
from pathlib import Path
from typing import Union

import numpy as np
import simplejpeg
from PIL import Image

from . import colour, convert, jpeg
from .errors import PictureError

# A JPEG file's bytes, the path of a picture file, sRGB uint8 [h,w,3], or a Pillow image.
Picture = Union[bytes, bytearray, memoryview, str, os.PathLike, np.ndarray, Image.Image]

JPEG_QUALITY = 95
_RGB = 3  # components
_VISIBLE = 64  # of 255: another colour


def to_jpeg(picture: Picture) -> bytes:
    """The JPEG file to send.

    Bytes go as they are, and so does a file that is a JPEG. Other picture files are decoded as browsers show them
    (upright, on white, 8 bits a colour, sRGB) and encoded as JPEG. A file that is no picture goes as it is: then the
    server says what it seems to be.

    Args:
        picture: see `Picture`; arrays are sRGB uint8 [h,w,3], upright.

    Raises:
        PictureError: the file cannot be read, is damaged, an animation or has pixels without agreed range or colours;
            or the array has another type or shape.
    """
    if isinstance(picture, (bytes, bytearray, memoryview)):
        return bytes(picture)
    if isinstance(picture, (str, os.PathLike)):
        return file_to_jpeg(_read_file(Path(picture)))
    if isinstance(picture, Image.Image):
        try:
            return _encode(convert.upright_rgb(picture))
        except PictureError:
            raise
        except Exception as error:  # Pillow reads a file's pixels only now, and raises many kinds
            raise convert.damaged(picture.format or "picture", error) from error
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
            raise PictureError(f"an array must be RGB uint8 [h,w,3], got {picture.dtype} {list(picture.shape)}")
        return _encode(picture)
    raise PictureError(f"a picture is bytes, a path, an array or a Pillow image, got {type(picture).__name__}")


def file_to_jpeg(data: bytes) -> bytes:
    """`to_jpeg` for the bytes of a picture file of any format."""
    if data.startswith(jpeg.START):
        return data
    pixels = convert.read(data)
    return data if pixels is None else _encode(pixels)


def upright_size(data: bytes) -> tuple[int, int]:
    """(width, height) in pixels of a JPEG file as viewers show it, from its headers; (0, 0) where unreadable."""
    header = jpeg.read_header(data)
    return (0, 0) if header is None else header.upright_size


def upright_pixels(data: bytes) -> np.ndarray:
    """Decode at full size, damaged files as far as they go.

    Args:
        data: a JPEG file.

    Returns:
        sRGB uint8 [h,w,3] as viewers show the picture; writable.

    Raises:
        PictureError: it cannot be decoded.
    """
    header = _header(data)
    change = _colours(data, header)
    if change is None:
        return _upright(_decode(data), header.orientation)
    return _upright(change(_decode(data, change.channels)), header.orientation)


def pixels_and_profile(data: bytes) -> tuple[np.ndarray, bytes | None]:
    """`upright_pixels` for who writes the picture to a file again, without a loss of colours.

    Args:
        data: a JPEG file.

    Returns:
        RGB uint8 [h,w,3] and the profile to write with them: None where they are sRGB, as those of grey and ink, and of
        profiles under which what is drawn would look different.

    Raises:
        PictureError: it cannot be decoded.
    """
    header = _header(data)
    change = _colours(data, header)
    if header.components != _RGB or (change is not None and not _is_plain(change)):
        return upright_pixels(data), None
    return _upright(_decode(data), header.orientation), jpeg.colour_profile(data)


def _is_plain(change: colour.Transform) -> bool:
    """Whether black, white and pure colours stay what they are under a profile, as under Display P3 and Adobe RGB."""
    pure = np.array(list(itertools.product((0, 255), repeat=3)), np.uint8)[None]
    return not change.is_rough and int(np.abs(change(pure).astype(np.int16) - pure).max()) < _VISIBLE


def _header(data: bytes) -> jpeg.Header:
    header = jpeg.read_header(data)
    if header is None:
        raise PictureError("not a JPEG, or its headers are damaged")
    return header


def _colours(data: bytes, header: jpeg.Header) -> colour.Transform | None:
    try:
        return colour.transform(jpeg.colour_profile(data), header.components)
    except colour.DoubtfulProfile as doubt:
        raise PictureError(f"viewers disagree over its colour profile ({doubt}): convert it to sRGB") from doubt


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _decode(data: bytes, channels: int = _RGB) -> np.ndarray:
    """uint8 [h,w,3 or 4] as stored: RGB, or ink, which is taken as stored inverted, with and without Adobe's marker."""
    try:
        return simplejpeg.decode_jpeg(data, "RGB" if channels == _RGB else "CMYK", strict=False)
    except ValueError:  # also where libjpeg warns of metadata, which changes no pixel
        pass
    try:
        with Image.open(io.BytesIO(jpeg.without_metadata(data))) as opened:
            return np.array(opened.convert("RGB")) if channels == _RGB else 255 - np.asarray(opened)
    except Exception as error:  # Pillow raises many kinds
        raise PictureError(f"cannot be decoded: {error}") from error


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise PictureError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _encode(pixels: np.ndarray) -> bytes:
    try:
        return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), JPEG_QUALITY, "RGB", "420")
    except ValueError as error:  # JPEG ends at 65500 pixels a side
        height, width = pixels.shape[:2]
        raise PictureError(f"{width}x{height} pixels cannot be encoded as JPEG: {error}") from error
