"""What a picture file says of its colours: a profile, or numbers in its headers."""

from __future__ import annotations

import struct
import zlib

from PIL import Image

from . import avif, colour, colour_spaces, icc, jpeg, png

_PNG_GREY = (0, 4)  # colour types, without and with alpha
_MOST_PROFILE_BYTES = 1 << 24  # that one in a PNG file unpacks to
_BT709 = (0.3127, 0.3290, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060)  # x and y of white, red, green and blue
_RGB = 3
# Code points that Chromium reads in an AVIF file as they are, those that it shows nothing of, and PQ and HLG.
_TRANSFERS, _SRGB = (4, 5, 7, 8, 9, 10, 11, 12, 13, 16, 17, 18), 13
_WEBP_ANIMATED = 2  # a flag
# Modes of Pillow; those that are neither grey nor ink are RGB, or become it.
_GREY = ("1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_BMP_FILE_HEADER = 14  # bytes
_EMBEDDED, _CALIBRATED = b"DEBM", b"\0\0\0\0"  # colour spaces of a BMP file


def of_picture(picture: Image.Image, data: bytes = b"") -> colour.Transform | None:
    """How the colours of a picture become sRGB.

    Args:
        picture: loaded.
        data: the file that it was read from, if it is known: Pillow tells little more than the profile.

    Raises:
        colour.DoubtfulProfile: viewers disagree over them.
    """
    kind = picture.format
    if kind == "PNG" and data:
        return _of_png(png.chunks_before_pixels(data))
    if kind == "BMP":
        return _of_bmp(data)
    profile = jpeg.colour_profile(data) if kind in ("JPEG", "MPO") and data else picture.info.get("icc_profile")
    if kind == "AVIF" and not profile:
        return _of_avif(data)
    if kind == "WEBP" and (getattr(picture, "n_frames", 1) > 1 or _is_animated_webp(data)):
        return None  # Chromium heeds no profile of an animation, were it of one frame
    # Browsers look for no profile in a GIF.
    return colour.transform(profile, components(picture)) if isinstance(profile, bytes) and kind != "GIF" else None


def file_behind(picture: Image.Image) -> bytes:
    """The file of a picture that Pillow has opened, but not loaded; empty where it cannot be read again."""
    file = getattr(picture, "fp", None)
    if file is None or picture.format not in ("PNG", "BMP", "AVIF", "WEBP", "JPEG", "MPO"):
        return b""
    position = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(position)
    return bytes(data)


def components(picture: Image.Image) -> int:
    """Colours in a pixel: 1, 3 or 4."""
    return 1 if picture.mode in _GREY else 4 if picture.mode == "CMYK" else 3


def _of_png(chunks: dict[bytes, bytes]) -> colour.Transform | None:
    """By the first of cICP, iCCP, sRGB and gAMA that counts."""
    points = chunks.get(b"cICP", b"")
    if len(points) == 4 and points[2:] == b"\0\1":
        space = colour_spaces.by_code_points(points[0], points[1])
        if space is not None:
            return colour.of_space(space)
    profile = _unpacked(chunks.get(b"iCCP", b""))
    if icc.read(profile) is not None:
        is_grey = chunks[b"IHDR"][9] in _PNG_GREY  # Pillow calls some of them RGBA
        return colour.transform(profile, 1 if is_grey else _RGB)
    gamma, chromaticities = chunks.get(b"gAMA", b""), chunks.get(b"cHRM", b"")
    if b"sRGB" in chunks or len(gamma) != 4:
        return None
    white_x, white_y, *primaries = _BT709
    stored = int.from_bytes(gamma, "big") / 100_000
    if not chromaticities and abs(stored * 2.2 - 1) < 0.05:
        return None  # Chromium takes it for sRGB
    if len(chromaticities) == 32:
        white_x, white_y, *primaries = (value / 100_000 for value in struct.unpack(">8I", chromaticities))
    space = colour_spaces.by_chromaticities((*primaries, white_x, white_y), 1 / stored if stored else 0)
    return None if space is None else colour.of_space(space)


def _unpacked(chunk: bytes) -> bytes:
    """The profile in an iCCP chunk, behind its name; empty where there is none."""
    try:
        return zlib.decompressobj().decompress(chunk[chunk.find(b"\0") + 2 :], _MOST_PROFILE_BYTES)
    except zlib.error:
        return b""


def _is_animated_webp(data: bytes) -> bool:
    return data.startswith(b"RIFF") and data[12:16] == b"VP8X" and bool(data[20:21]) and bool(data[20] & _WEBP_ANIMATED)


def _of_avif(data: bytes) -> colour.Transform | None:
    points = avif.code_points(data)
    if points is None:
        return None
    primaries, transfer = points
    if primaries == 0 or transfer in (0, 3):
        return None  # reserved: Chromium changes nothing
    # Transfers like BT.709's, and those that it does not know, it shows as sRGB; unknown primaries as BT.709's.
    if transfer not in _TRANSFERS:
        transfer = _SRGB
    space = colour_spaces.by_code_points(primaries, transfer) or colour_spaces.by_code_points(1, transfer)
    return None if space is None else colour.of_space(space)


def _of_bmp(data: bytes) -> colour.Transform | None:
    """By a header of version 4 or 5."""
    if len(data) < _BMP_FILE_HEADER + 108 or int.from_bytes(data[14:18], "little") < 108:
        return None
    kind = data[70:74]
    if kind == _CALIBRATED and any(data[74:110]):
        raise colour.DoubtfulProfile("primaries of its own")
    if kind == _EMBEDDED and len(data) >= _BMP_FILE_HEADER + 124:
        offset, size = struct.unpack_from("<2I", data, 126)
        return colour.transform(data[_BMP_FILE_HEADER + offset : _BMP_FILE_HEADER + offset + size], _RGB)
    return None
