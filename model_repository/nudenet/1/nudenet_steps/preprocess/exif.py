"""EXIF orientation, read as browsers read it (Skia's SkExif): what they turn is turned, what they ignore is ignored."""

from __future__ import annotations

import struct

HEADER = b"Exif\0"  # and one byte of padding, whatever its value
HEADER_BYTES = len(HEADER) + 1
_ORIENTATION, _SUB_DIRECTORY = 0x0112, 0x8769
_SHORT, _LONG = 3, 4
_ENTRY_BYTES = 12


def is_exif(payload: bytes) -> bool:
    """Whether an APP1 segment's payload is EXIF; of several such segments the first counts, be it broken or not."""
    return payload.startswith(HEADER) and len(payload) > HEADER_BYTES


def orientation(tiff: bytes) -> int:
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
            if found := _in_directory(tiff, order, below, False):
                return found
    return 0
