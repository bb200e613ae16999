"""Other pictures than JPEG: upright, on white, 8 bits a colour, sRGB, and sent by `pictures.py` as JPEG.

As browsers show them, colour profiles included.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from . import colour, file_colours
from .errors import PictureError
from .jpeg import EXIF_HEADER, EXIF_HEADER_BYTES, tiff_orientation

PROGRAMS = frozenset({"EPS"})  # Pillow gives PostScript to Ghostscript, which would run what a stranger sent
# Browsers turn these by their EXIF data; WebP, GIF and BMP never. Pillow itself turns TIFF by its tag.
_TURNED = frozenset({"JPEG", "MPO", "PNG", "AVIF", None})
_16_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
_16_BITS_AS_32 = ("PNG", "PPM")  # formats whose 16 bits Pillow opens as 32
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # a tag of TIFF
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
        sRGB uint8 [h,w,3]; None where the data is no picture to Pillow.

    Raises:
        PictureError: it is damaged, an animation, or has pixels without an agreed range or agreed colours.
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
            return _upright_rgb(opened, data)
        except PictureError:
            raise
        except Exception as error:  # whatever Pillow says of a damaged file is this file's trouble alone
            raise PictureError(f"damaged {kind}: {error}") from error


def upright_rgb(picture: Image.Image) -> np.ndarray:
    """sRGB uint8 [h,w,3] of the picture's present frame, upright and on white.

    A picture that was opened from a file, but is not loaded yet, is seen as the file. Of others the profile and the
    orientation in ``picture.info`` count.

    Raises:
        PictureError: pixels without an agreed range: floats beyond 0..1, integers of 32 bits; or viewers disagree over
            its colours.
    """
    return _upright_rgb(picture, file_colours.file_behind(picture))


def _upright_rgb(picture: Image.Image, data: bytes) -> np.ndarray:
    picture.load()
    kind = picture.format or "picture"
    try:
        change = file_colours.of_picture(picture, data)
    except colour.DoubtfulProfile as doubt:
        raise PictureError(f"viewers disagree over this {kind}'s colours ({doubt}): convert it to sRGB") from doubt
    flat = _on_white(picture, change)
    turn = _TURNS.get(_orientation(picture, data))
    return np.asarray(flat if turn is None else flat.transpose(turn))


def _on_white(picture: Image.Image, change: colour.Transform | None) -> Image.Image:
    mode = picture.mode
    if mode in _16_BITS or (mode == "I" and picture.format in _16_BITS_AS_32):
        values = np.asarray(picture).astype(np.float64) / 65535
        return _scaled(values, picture, change)
    if mode == "F":
        with np.errstate(invalid="ignore"):  # of NaN, which is refused below
            return _scaled(np.asarray(picture).astype(np.float64), picture, change)
    if mode == "I":
        raise PictureError(
            "pixels are integers of 32 bits, or have a sign, and their range is not known: scale them to 8 or 16 bits"
        )
    if change is not None and change.channels == 4:
        return Image.fromarray(change(255 - np.asarray(picture)))
    if not picture.has_transparency_data:
        return _changed(picture.convert("RGB"), change)
    colours = picture.convert("RGBA")
    seen = _changed(colours.convert("RGB"), change)
    seen.putalpha(colours.getchannel("A"))
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), seen).convert("RGB")


def _changed(picture: Image.Image, change: colour.Transform | None) -> Image.Image:
    return picture if change is None else Image.fromarray(change(np.asarray(picture)))


def _scaled(values: np.ndarray, picture: Image.Image, change: colour.Transform | None) -> Image.Image:
    """Grey out of the picture's values in 0..1, the transparent one (of 16 bits) white."""
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 1):  # NaN fails both
        raise PictureError(f"pixels are floats of {low:g} to {high:g}: scale them to 0..1")
    is_negative = getattr(picture, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO  # of 8 bits Pillow knows it
    grey = Image.fromarray(np.round((1 - values if is_negative else values) * 255).astype(np.uint8))
    seen = _changed(grey.convert("RGB"), change)
    transparent = picture.info.get("transparency")
    if isinstance(transparent, int) and picture.mode != "F":
        is_seen = np.round(values * 65535) != transparent
        seen = Image.composite(seen, Image.new("RGB", seen.size, "white"), Image.fromarray(is_seen))
    return seen


def _orientation(picture: Image.Image, data: bytes) -> int:
    """Of a picture that Pillow has opened, or that somebody made."""
    if picture.format not in _TURNED:
        return 1
    if picture.format == "PNG" and data:  # browsers read the eXIf chunk before the pixels, which has no header
        return tiff_orientation(file_colours.png_chunks(data).get(b"eXIf", b""))
    block = picture.info.get("exif")
    if isinstance(block, bytes):
        is_headed = block.startswith(EXIF_HEADER)
        return tiff_orientation(block[EXIF_HEADER_BYTES:] if is_headed else block)
    return 1
