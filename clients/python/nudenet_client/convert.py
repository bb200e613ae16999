"""Other pictures than JPEG: upright, on white, 8 bits a colour, and sent by `pictures.py` as JPEG.

As browsers show them, but for colour profiles, which are not applied: values count as sRGB.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from .errors import PictureError
from .jpeg import EXIF_HEADER, EXIF_HEADER_BYTES, tiff_orientation

PROGRAMS = frozenset({"EPS"})  # Pillow gives PostScript to Ghostscript, which would run what a stranger sent
_PNG_START = b"\x89PNG\r\n\x1a\n"
# Browsers turn these by their EXIF data; WebP, GIF and BMP never. Pillow itself turns TIFF by its tag.
_TURNED = frozenset({"JPEG", "MPO", "PNG", "AVIF", None})
_16_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read(data: bytes) -> np.ndarray | None:
    """Decode a picture file of any format that Pillow reads itself.

    Returns:
        RGB uint8 [h,w,3]; None where the data is no picture to Pillow.

    Raises:
        PictureError: it is damaged, an animation, or has pixels without an agreed range.
    """
    try:
        opened = Image.open(io.BytesIO(data))
    except Exception:  # no picture, or headers that Pillow cannot read: it raises many kinds
        return None
    with opened:
        kind = opened.format or "picture"
        if kind in PROGRAMS:
            return None
        try:
            frames = int(getattr(opened, "n_frames", 1))
            if frames > 1:
                raise PictureError(
                    f"{kind} of {frames} frames: none was looked at; send each frame as a picture, or an animation "
                    "as a stream"
                )
            return upright_rgb(opened, _png_orientation(data) if kind == "PNG" else None)
        except PictureError:
            raise
        except Exception as error:  # whatever Pillow says of a damaged file is this file's trouble alone
            raise PictureError(f"damaged {kind}: {error}") from error


def upright_rgb(picture: Image.Image, orientation: int | None = None) -> np.ndarray:
    """RGB uint8 [h,w,3] of the picture's present frame, upright and on white.

    Args:
        orientation: 1..8; by default what the picture's own metadata says.

    Raises:
        PictureError: pixels without an agreed range: floats beyond 0..1, integers of 32 bits.
    """
    picture.load()
    turn = _TURNS.get(_orientation(picture) if orientation is None else orientation)
    flat = _on_white(picture)
    return np.asarray(flat if turn is None else flat.transpose(turn))


def _on_white(picture: Image.Image) -> Image.Image:
    mode = picture.mode
    if mode in _16_BITS or (mode == "I" and picture.format == "PNG"):
        return _scaled(np.asarray(picture).astype(np.float64) / 65535, picture.info.get("transparency"))
    if mode == "F":
        with np.errstate(invalid="ignore"):  # of NaN, which is refused below
            return _scaled(np.asarray(picture).astype(np.float64), None)
    if mode == "I":
        raise PictureError("pixels are integers of 32 bits, whose range is not known: scale them to 8 or 16 bits")
    if picture.has_transparency_data:
        colours = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, colours).convert("RGB")
    return picture.convert("RGB")


def _scaled(values: np.ndarray, transparent: object) -> Image.Image:
    """Grey out of values in 0..1, the transparent one (of 16 bits) white."""
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 1):  # NaN fails both
        raise PictureError(f"pixels are floats of {low:g} to {high:g}: scale them to 0..1")
    grey = np.round(values * 255)
    if isinstance(transparent, int):
        grey[np.round(values * 65535) == transparent] = 255
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")


def _orientation(picture: Image.Image) -> int:
    """Of a picture that Pillow has opened, or that somebody made."""
    if picture.format not in _TURNED:
        return 1
    block = picture.info.get("exif")
    if isinstance(block, bytes):
        is_headed = block.startswith(EXIF_HEADER)
        return tiff_orientation(block[EXIF_HEADER_BYTES:] if is_headed else block)
    return 1


def _png_orientation(data: bytes) -> int:
    """Of a PNG file: browsers read its eXIf chunk before the pixels, which has no header."""
    position = len(_PNG_START)
    while position + 12 <= len(data):
        length, name = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        if name == b"eXIf":
            return tiff_orientation(data[position + 8 : position + 8 + length])
        if name == b"IDAT":
            break
        position += 12 + length
    return 1
