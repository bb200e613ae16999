"""Other pictures than JPEG: upright, on white, 8 bits a colour, sRGB, and sent by `pictures.py` as JPEG.

As browsers show them, colour profiles included.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import IcoImagePlugin, Image

from . import bmp, colour, file_colours, jpeg, png
from .errors import PictureError
from .jpeg import EXIF_HEADER, EXIF_HEADER_BYTES, tiff_orientation

_PROGRAMS = frozenset({"EPS"})  # Pillow gives PostScript to Ghostscript, which would run what a stranger sent
# Browsers turn these by their EXIF data; WebP, GIF and BMP never. Pillow itself turns TIFF by its tag.
_TURNED = frozenset({"JPEG", "MPO", "PNG", "AVIF", None})
_16_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
_16_BITS_AS_32 = ("PNG", "PPM")  # formats whose 16 bits Pillow opens as 32
# Tags of TIFF, and values of them.
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_COLOUR_MAP = 320
_SAMPLE_FORMAT, _SIGNED = 339, 2
_KNOWN = ("PNG", "GIF", "WEBP", "AVIF", "BMP", "TIFF", "ICO")  # formats whose first bytes nothing else has
_PLAYED = {"GIF": ", or play it with tools/stream.py"}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class _Shown(io.BytesIO):
    """A file out of `as_shown`, which need not be asked again at each frame of it."""


def read(data: bytes) -> np.ndarray | None:
    """Decode a picture file of any format that Pillow reads itself.

    Returns:
        sRGB uint8 [h,w,3]; None where the data is no picture to Pillow.

    Raises:
        PictureError: it is damaged, an animation, or has pixels without an agreed range or agreed colours.
    """
    found = opened(data)
    if found is None:
        return None
    with found as picture:
        kind = picture.format or "picture"
        try:
            frames = int(getattr(picture, "n_frames", 1))
            if frames > 1:
                advice = "send each frame as a picture" + _PLAYED.get(kind, "")
                raise PictureError(f"{kind} of {frames} frames: none was looked at; {advice}")
            return upright_rgb(picture)
        except PictureError:
            raise
        except Exception as error:  # whatever Pillow says of a damaged file is this file's trouble alone
            raise damaged(kind, error) from error


def damaged(kind: str, error: Exception) -> PictureError:
    """What to say of a file that Pillow fails on; some of its errors have no text."""
    return PictureError(f"damaged {kind}: {str(error) or repr(error)}")


def opened(data: bytes) -> Image.Image | None:
    """A picture file, opened as viewers read it: without what only Pillow heeds, and with what it overlooks.

    Returns:
        not loaded yet; None where the data is no picture to Pillow.

    Raises:
        PictureError: its headers are damaged, or viewers disagree over what it shows.
    """
    shown = as_shown(data)
    try:
        picture = Image.open(_Shown(shown))
    except Image.DecompressionBombError as error:
        raise PictureError(str(error)) from error
    except Exception as error:  # no picture, or headers that Pillow cannot read: it raises many kinds
        _refuse_unreadable(shown, error)
        return None
    if picture.format in _PROGRAMS:
        picture.close()
        return None
    pictures = len(picture.ico.entry) if isinstance(picture, IcoImagePlugin.IcoImageFile) else 1
    if pictures > 1:
        picture.close()
        raise PictureError(f"ICO of {pictures} pictures, of which each viewer chooses one: send it as PNG")
    return picture


def as_shown(data: bytes) -> bytes:
    """The file with what viewers heed, as Pillow reads it alike; most files stay as they are.

    Raises:
        PictureError: viewers disagree over what it shows.
    """
    return png.as_shown(data) if data.startswith(png.START) else bmp.as_shown(data)


def _refuse_unreadable(data: bytes, error: Exception) -> None:
    """Raise PictureError if the data says by its first bytes that it is a picture."""
    for kind in _KNOWN:
        factory, accepts = Image.OPEN.get(kind, (None, None))
        if factory is None or accepts is None or not (accepted := accepts(data[:16])):
            continue
        reason = accepted if isinstance(accepted, str) else ""
        if not reason:
            try:
                factory(io.BytesIO(data), "").close()
            except Exception as why:
                reason = str(why) or repr(why)
        raise PictureError(f"a {kind} picture that cannot be read: {reason or error}") from error


def upright_rgb(picture: Image.Image) -> np.ndarray:
    """sRGB uint8 [h,w,3] of the picture's present frame, upright and on white.

    A picture that was opened from a file, but is not loaded yet, is seen as the file. Of others the profile and the
    orientation in ``picture.info`` count.

    Raises:
        PictureError: pixels without an agreed range: floats beyond 0..1, integers of 32 bits; or viewers disagree over
            its colours.
    """
    data = file_colours.file_behind(picture)
    if picture.format not in ("PNG", "BMP") or isinstance(getattr(picture, "fp", None), _Shown):
        return _upright_rgb(picture, data)
    shown = as_shown(data)
    if shown == data:
        return _upright_rgb(picture, data)
    with Image.open(_Shown(shown)) as again:
        again.seek(picture.tell())
        return _upright_rgb(again, shown)


def _upright_rgb(picture: Image.Image, data: bytes) -> np.ndarray:
    picture.load()
    kind = picture.format or "picture"
    _check_pixels(picture, data)
    try:
        change = file_colours.of_picture(picture, data)
    except colour.DoubtfulProfile as doubt:
        raise PictureError(f"viewers disagree over this {kind}'s colours ({doubt}): convert it to sRGB") from doubt
    flat = _on_white(picture, change)
    turn = _TURNS.get(_orientation(picture, data))
    return np.asarray(flat if turn is None else flat.transpose(turn))


def _check_pixels(picture: Image.Image, data: bytes) -> None:
    """Refuse what Pillow does not notice, and read palettes that it misreads."""
    if picture.format == "PNG" and data and picture.tell() == 0:
        if not png.is_complete(data):
            raise PictureError("damaged PNG: its pixels end early")
        if picture.mode == "L" and isinstance(transparent := picture.info.get("transparency"), int):
            picture.info["transparency"] = png.level(data, transparent)
    if picture.format == "BMP" and data and picture.mode in ("L", "P"):
        colours, last = bmp.palette_size(data), np.asarray(picture).max()
        if 0 < colours <= last:
            raise PictureError(f"damaged BMP: a pixel has colour {last} of a palette of {colours}")
    if picture.format == "TIFF":
        tags = getattr(picture, "tag_v2", {})
        if picture.mode != "I" and _SIGNED in np.atleast_1d(tags.get(_SAMPLE_FORMAT, 1)):
            raise PictureError("pixels have a sign, and their range is not known: scale them to 8 or 16 bits")
        planes = tags.get(_COLOUR_MAP, ())
        if picture.mode == "P" and planes and max(planes) <= 255:  # of 8 bits, where 16 are the rule
            picture.putpalette(np.reshape(planes, (3, -1)).T.astype(np.uint8).tobytes())


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
    if picture.format in ("BMP", "ICO") and colours.getchannel("A").getextrema()[1] == 0:
        return _changed(colours.convert("RGB"), change)  # bytes that nobody filled
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
        return tiff_orientation(png.chunks_before_pixels(data).get(b"eXIf", b""))
    header = jpeg.read_header(data) if picture.format in ("JPEG", "MPO") and data else None
    if header is not None:
        return header.orientation
    block = picture.info.get("exif")
    if isinstance(block, bytes):
        is_headed = block.startswith(EXIF_HEADER)
        return tiff_orientation(block[EXIF_HEADER_BYTES:] if is_headed else block)
    return 1
