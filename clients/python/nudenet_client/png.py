"""PNG files as browsers read them: which chunks count, and whether all pixels are there.

Pillow takes chunks wherever they stand, the last of two, and refuses files over metadata that no viewer minds. What it
would see then is not what a viewer sees: a picture made transparent, say, by a chunk that browsers pass over.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from .errors import PictureError

START = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE = 0, 2, 3  # colour types
_CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, 4: 2, 6: 4}  # by colour type
_ANIMATION, _OTHER_FRAMES = b"acTL", (b"fcTL", b"fdAT")
_PIXELS = (b"IDAT", *_OTHER_FRAMES, b"IEND")
_LONGEST_PROFILE_NAME = 80
# First column and row of each of Adam7's passes, and their steps.
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def as_shown(data: bytes) -> bytes:
    """The file with the chunks alone that Chromium heeds, each once; what is no PNG, or has no header, stays as it is.

    Raises:
        PictureError: viewers disagree over it, or its transparent colour has 16 bits a channel.
    """
    chunks = list(_chunks(data))
    if not chunks or chunks[0][0] != b"IHDR" or len(chunks[0][1]) != 13:
        return data
    header = chunks[0][1]
    bits, kind = header[8], header[9]
    before: dict[bytes, bytes] = {}  # what stands before the pixels and counts
    pixels: list[tuple[bytes, bytes]] = []
    for name, content in chunks[1:]:
        if name in _PIXELS:
            pixels.append((name, content))
        elif pixels and name != _ANIMATION:
            continue  # too late to count
        elif name == _ANIMATION and name in before:
            raise PictureError("viewers disagree over the frames of this PNG (two acTL chunks): save it anew")
        elif name not in before and not pixels and _counts(name, content, kind, b"PLTE" in before):
            before[name] = content
    if not _is_profile(before.get(b"iCCP", b"")):  # of several the first alone counts
        before.pop(b"iCCP", None)
    if _ANIMATION not in before:
        pixels = [(name, content) for name, content in pixels if name not in _OTHER_FRAMES]
    if kind == PALETTE and b"PLTE" in before:
        _fill_palette(before, 1 << bits)
    elif kind == RGB and bits == 16 and b"tRNS" in before:
        raise PictureError("PNG of 16 bits a colour with a transparent colour: give it an alpha channel, or 8 bits")
    ordered = sorted(before.items(), key=lambda item: (item[0] == b"tRNS", item[0] == b"PLTE"))  # tRNS last
    return START + b"".join(_chunk(name, content) for name, content in [(b"IHDR", header), *ordered, *pixels])


def chunks_before_pixels(data: bytes) -> dict[bytes, bytes]:
    """Content of the first chunk of each name before the pixels."""
    found: dict[bytes, bytes] = {}
    for name, content in _chunks(data):
        if name == b"IDAT":
            break
        found.setdefault(name, content)
    return found


def level(data: bytes, value: int) -> int:
    """A grey value of the file, of 1 to 16 bits, among Pillow's of 8: it scales those of 2 and 4 bits."""
    bits = data[24]
    return value * (255 // ((1 << bits) - 1)) if bits < 8 else value


def is_complete(data: bytes) -> bool:
    """Whether the pixels unpack to as many bytes as the header says; True also where they do not unpack at all."""
    missing, unpacker = 0, zlib.decompressobj()
    for name, content in _chunks(data):
        if name == b"IHDR":
            missing = _bytes_of_pixels(content)
        if name != b"IDAT" or missing <= 0:
            continue
        while content and missing > 0 and not unpacker.eof:
            try:
                missing -= len(unpacker.decompress(content, 1 << 16))
            except zlib.error:  # Pillow says so
                return True
            content = unpacker.unconsumed_tail
    return missing <= 0


def _bytes_of_pixels(header: bytes) -> int:
    width, height, bits, kind, _, _, interlaced = struct.unpack(">2I5B", header)
    passes = PASSES if interlaced else ((0, 0, 1, 1),)
    total = 0
    for left, top, right, down in passes:
        columns, rows = max(0, -(-(width - left) // right)), max(0, -(-(height - top) // down))
        if columns:
            total += rows * (1 + -(-columns * bits * _CHANNELS.get(kind, 1) // 8))  # a filter type, then the row
    return total


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of each; those without which the picture can be shown only if their checksum is right."""
    position = len(START)
    if not data.startswith(START):
        return
    while position + 12 <= len(data):
        length, name = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        content = data[position + 8 : position + 8 + length]
        checksum = int.from_bytes(data[position + 8 + length : position + 12 + length], "big")
        is_needed = not name[0] & 0x20
        if is_needed or zlib.crc32(content, zlib.crc32(name)) == checksum:
            yield name, content
        position += 12 + length


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(name)))


def _counts(name: bytes, content: bytes, kind: int, is_behind_palette: bool) -> bool:
    """Whether Chromium heeds this chunk, the first whole one of its name."""
    if name == b"gAMA":
        return len(content) == 4 and any(content)
    if name == b"sRGB":
        return len(content) == 1 and content[0] <= 3
    if name == b"cHRM":
        return len(content) == 32
    if name == b"cICP":
        return len(content) == 4 and not is_behind_palette
    if name == b"tRNS":
        if kind == PALETTE:
            return is_behind_palette and 0 < len(content) <= 256
        return len(content) >= {GREY: 2, RGB: 6}.get(kind, len(content) + 1)
    if name == _ANIMATION:
        return len(content) >= 8
    return name in (b"iCCP", b"eXIf", b"PLTE")


def _is_profile(chunk: bytes) -> bool:
    """Whether it begins as an iCCP chunk must: a name, a zero, and the only method of packing that there is."""
    end = chunk.find(b"\0")
    return 0 < end <= _LONGEST_PROFILE_NAME and chunk[end + 1 : end + 2] == b"\0"


def _fill_palette(chunks: dict[bytes, bytes], size: int) -> None:
    """Chromium shows the last colour of the palette where a pixel's number lies behind it."""
    colours = chunks[b"PLTE"][: len(chunks[b"PLTE"]) // 3 * 3]
    count = len(colours) // 3
    if not 0 < count < size:
        return
    chunks[b"PLTE"] = colours + colours[-3:] * (size - count)
    if b"tRNS" in chunks:
        alpha = chunks[b"tRNS"][:count].ljust(count, b"\xff")
        chunks[b"tRNS"] = alpha + alpha[-1:] * (size - count)
