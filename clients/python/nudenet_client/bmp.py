"""BMP files as Chromium reads them, where Pillow reads them otherwise."""

from __future__ import annotations

import struct

_BIT_COUNT, _COMPRESSION, _MASKS = 28, 30, 54  # offsets in the file
_STANDARD_MASKS = (0xFF0000, 0xFF00, 0xFF)
_WITH_ALPHA_MASK = 56  # bytes of the header, at least
_MASKED = 3  # a way of compression


def as_shown(data: bytes) -> bytes:
    """A file of 32 bits a pixel whose header names an alpha mask has alpha, also where its colours need no masks."""
    if len(data) < _MASKS + 16 or not data.startswith(b"BM"):
        return data
    (size,) = struct.unpack_from("<I", data, 14)
    bits, compression = struct.unpack_from("<HI", data, _BIT_COUNT)
    (alpha,) = struct.unpack_from("<I", data, _MASKS + 12)
    if size < _WITH_ALPHA_MASK or bits != 32 or compression != 0 or alpha != 0xFF000000:
        return data
    changed = bytearray(data)
    struct.pack_into("<I", changed, _COMPRESSION, _MASKED)
    struct.pack_into("<3I", changed, _MASKS, *_STANDARD_MASKS)
    return bytes(changed)


def palette_size(data: bytes) -> int:
    """Colours in the palette; 0: not said, as many as the bits allow."""
    (size,) = struct.unpack_from("<I", data, 14)
    return int(struct.unpack_from("<I", data, 46)[0]) if size >= 40 else 0
