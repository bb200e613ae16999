"""What a JPEG file's headers say, read as browsers and the server read them, without a library.

The server has the same rules (`nudenet_steps.preprocess.jpeg`, `exif`), and so has the Node.js client (`jpeg.js`);
one table of odd files is tested against all three.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from . import icc

START = b"\xff\xd8\xff"
_SOS, _APP0, _APP1, _APP2, _APP14, _COM = 0xDA, 0xE0, 0xE1, 0xE2, 0xEE, 0xFE
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # DHT, JPG and DAC share the range
_FILL = re.compile(rb"\xff+")
_MAX_SEGMENTS = 2000

EXIF_HEADER = b"Exif\0"  # and one byte of padding, whatever its value
EXIF_HEADER_BYTES = len(EXIF_HEADER) + 1
_ICC = b"ICC_PROFILE\0"  # then the part's number and how many there are
_ICC_BYTES = len(_ICC) + 2
_ORIENTATION, _SUB_DIRECTORY = 0x0112, 0x8769
_SHORT, _LONG = 3, 4
_ENTRY_BYTES = 12


@dataclass(frozen=True)
class Header:
    """Stored size in pixels, number of colour components, EXIF orientation 1..8."""

    width: int
    height: int
    components: int
    orientation: int

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) in pixels as viewers show the picture."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def read_header(data: bytes) -> Header | None:
    """The header of a JPEG file; None where it is unreadable."""
    segments = _segments(data)
    if segments is None:
        return None
    width = height = components = orientation = 0
    for marker, start, end in segments:
        payload = start + 4
        if marker in _SOF and end >= payload + 6:
            height, width, components = struct.unpack_from(">HHB", data, payload + 1)
        elif marker == _APP1 and not orientation and _is_exif(data, payload, end):
            orientation = tiff_orientation(data[payload + EXIF_HEADER_BYTES : end])
    return Header(width, height, components, orientation or 1) if width and height else None


def _is_exif(data: bytes, payload: int, end: int) -> bool:
    return data.startswith(EXIF_HEADER, payload) and end > payload + EXIF_HEADER_BYTES


def without_metadata(data: bytes) -> bytes:
    """The file without the segments that no pixel depends on; unchanged where its headers are unreadable."""
    segments = _segments(data)
    if segments is None:
        return data
    kept = [data[:2]]
    for marker, start, end in segments:
        if marker < _APP0 or marker in (_APP0, _APP14) or marker > _COM:
            kept.append(data[start:end])
    kept.append(data[segments[-1][2] if segments else 2 :])
    return b"".join(kept)


def colour_profile(data: bytes) -> bytes | None:
    """The ICC profile of a JPEG file; None where it has none, or not all parts of one."""
    parts = []
    for marker, start, end in _segments(data) or []:
        at = start + 4 + _ICC_BYTES
        if marker == _APP2 and at <= min(end, len(data)) and data.startswith(_ICC, start + 4):
            parts.append((data[at - 2], data[at - 1], data[at:end]))
    return icc.join(parts)


def tiff_orientation(tiff: bytes) -> int:
    """Orientation 1..8 out of a TIFF block; 1 where it is absent or unreadable.

    The first valid entry counts (SHORT, one value, 1..8), in the root directory and the EXIF directory in it.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return 1
    (root,) = struct.unpack_from(order + "I", tiff, 4)
    return _in_directory(tiff, order, root, True) or 1


def _in_directory(tiff: bytes, order: str, offset: int, is_root: bool) -> int:
    """Orientation 1..8 in the directory at `offset`; 0 where there is none."""
    if offset + 2 > len(tiff):
        return 0
    (count,) = struct.unpack_from(order + "H", tiff, offset)
    count = min(count, (len(tiff) - offset - 2) // _ENTRY_BYTES)  # promised but missing entries are ignored
    for at in range(offset + 2, offset + 2 + count * _ENTRY_BYTES, _ENTRY_BYTES):
        tag, kind, values, short = struct.unpack_from(order + "HHIH", tiff, at)
        if (tag, kind, values) == (_ORIENTATION, _SHORT, 1) and 1 <= short <= 8:
            return short
        if is_root and (tag, kind, values) == (_SUB_DIRECTORY, _LONG, 1):
            (below,) = struct.unpack_from(order + "I", tiff, at + 8)
            found = _in_directory(tiff, order, below, False)
            if found:
                return found
    return 0


def _segments(data: bytes) -> list[tuple[int, int, int]] | None:
    """(marker, start, end) of the segments before the first scan; None where there is no scan behind them."""
    if data[:3] != START:
        return None
    found: list[tuple[int, int, int]] = []
    position = 2
    for _ in range(_MAX_SEGMENTS):
        fill = _FILL.match(data, position)
        if fill is None or fill.end() + 3 > len(data):
            return None
        position = fill.end() - 1
        marker = data[position + 1]
        if marker == _SOS:
            return found
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if length < 2 or marker < 0xC0 or 0xD0 <= marker <= 0xD9:
            return None
        found.append((marker, position, position + 2 + length))
        position += 2 + length
    return None
