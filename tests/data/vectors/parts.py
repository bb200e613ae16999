"""Files of other formats with parts that readers heed or pass over: chunks of PNG, masks of BMP, boxes of AVIF."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from data.vectors.coloured import DOUBTFUL, Row, chrm, chunk, cicp, gama, iccp, negative
from helpers.hostile import encode

START, END = b"\x89PNG\r\n\x1a\n", chunk(b"IEND", b"")
GREY, RGB, PALETTE = 0, 2, 3
_SRGB = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
_DISPLAY_P3 = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)


def broken(part: bytes) -> bytes:
    """The chunk with a wrong checksum."""
    return part[:-1] + bytes([part[-1] ^ 1])


def header(pixels: np.ndarray, kind: int, bits: int = 8) -> bytes:
    width = pixels.shape[1] * 8 // bits if bits < 8 else pixels.shape[1]
    return START + chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(pixels), bits, kind, 0, 0, 0))


def packed(pixels: np.ndarray) -> bytes:
    """IDAT of uint8 or big-endian uint16 [h,w] or [h,w,3]."""
    return chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels)))


def others(picture: Image.Image) -> Iterator[Row]:
    """Name, file, and why it is refused."""
    rgb, grey = np.asarray(picture), np.asarray(picture.convert("L"))
    for name, parts, refused in _colours():
        yield f"PNG, {name}", header(rgb, RGB) + parts + packed(rgb) + END, refused
    yield from _transparency(rgb, grey)
    yield from _bitmaps(rgb, grey)
    yield from _avif(picture)
    frames = encode(picture, format="WEBP", lossless=True, icc_profile=negative())
    flags = bytearray(frames)
    flags[20] |= 2
    at = frames.index(b"VP8L")
    frame = bytes(6) + struct.pack("<I", picture.width - 1)[:3] + struct.pack("<I", picture.height - 1)[:3] + bytes(4)
    frame += frames[at:]
    animation = b"ANIM" + struct.pack("<I", 6) + bytes(6) + b"ANMF" + struct.pack("<I", len(frame)) + frame
    data = bytes(flags[12:at]) + animation
    yield "WebP, animation of one frame, negative", b"RIFF" + struct.pack("<I", len(data) + 4) + b"WEBP" + data, ""


def _colours() -> Iterator[Row]:
    linear, plain, points = gama(1.0), gama(0.45455), cicp(1, 8, 0, 1)
    for value in (0.431, 0.433, 0.45455, 0.476, 0.478):
        yield f"gAMA {value}", gama(value), ""
    yield "gAMA of sRGB and its primaries", plain + chrm(_SRGB), ""
    yield "gAMA of sRGB and other primaries", plain + chrm(_DISPLAY_P3), ""
    yield "cHRM that is short", plain + chunk(b"cHRM", bytes(31)), ""
    yield "cHRM twice", plain + chrm(_SRGB) + chrm(_DISPLAY_P3), ""
    yield "gAMA twice", linear + plain, ""
    yield "gAMA of zero, and another", chunk(b"gAMA", bytes(4)) + linear, ""
    yield "gAMA that is short, and another", chunk(b"gAMA", b"\0\0\1") + linear, ""
    yield "gAMA, wrong checksum", broken(linear), ""
    yield "sRGB of an unknown intent", chunk(b"sRGB", b"\x09") + linear, ""
    yield "sRGB of two bytes", chunk(b"sRGB", b"\0\0") + linear, ""
    yield "sRGB, wrong checksum", broken(chunk(b"sRGB", b"\0")) + linear, ""
    yield "cICP, empty, and another", cicp() + points, ""
    yield "cICP of five bytes", cicp(1, 8, 0, 1, 0), ""
    yield "cICP that does not count, and another", cicp(1, 8, 0, 0) + points, ""
    profile = zlib.compress(negative())
    for name, content in (
        ("without a name", b"\0\0" + profile),
        ("name of 80 bytes", b"x" * 80 + b"\0\0" + profile),
        ("name of 81 bytes", b"x" * 81 + b"\0\0" + profile),
        ("another method", b"x\0\1" + profile),
        ("nothing but a name", b"x" * 40),
    ):
        yield f"iCCP, {name}", chunk(b"iCCP", content), ""
    yield "iCCP without a name, and another", chunk(b"iCCP", b"\0\0" + profile) + iccp(negative()), ""
    yield "iCCP, wrong checksum, and another", broken(iccp(negative())) + iccp(negative()), ""
    yield "text, wrong checksum", broken(chunk(b"tEXt", b"a\0b")), ""
    yield "text without end", chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2_000_000))), ""
    yield "acTL, wrong checksum", broken(chunk(b"acTL", bytes((0, 0, 0, 2, 0, 0, 0, 0)))), ""
    yield "acTL twice", chunk(b"acTL", bytes((0, 0, 0, 1, 0, 0, 0, 0))) + chunk(b"acTL", bytes(8)), DOUBTFUL


def _transparency(rgb: np.ndarray, grey: np.ndarray) -> Iterator[Row]:
    palette = chunk(b"PLTE", np.repeat(np.arange(256, dtype=np.uint8), 3).tobytes())
    clear, opaque = chunk(b"tRNS", bytes(256)), chunk(b"tRNS", b"\xff" * 256)

    def indexed(name: str, colours: bytes, behind: bytes = b"") -> Row:
        return f"PNG, palette, {name}", header(grey, PALETTE) + colours + packed(grey) + behind + END, ""

    yield indexed("tRNS", palette + clear)
    yield indexed("tRNS in front", clear + palette)
    yield indexed("tRNS in front and behind", opaque + palette + clear)
    yield indexed("tRNS twice, opaque first", palette + opaque + clear)
    yield indexed("tRNS twice, clear first", palette + clear + opaque)
    yield indexed("tRNS behind the pixels", palette, clear)
    yield indexed("tRNS, empty, and another", palette + chunk(b"tRNS", b"") + clear)
    yield indexed("tRNS too long", palette + chunk(b"tRNS", bytes(300)))
    yield indexed("tRNS, wrong checksum", palette + broken(clear))
    short = chunk(b"PLTE", bytes(range(90)))
    yield indexed("pixels beyond it", short)
    yield indexed("pixels beyond it, the last colour clear", short + chunk(b"tRNS", b"\xff" * 29 + b"\0"))
    yield indexed("pixels beyond it, tRNS as well", short + chunk(b"tRNS", b"\xff" * 30 + bytes(226)))
    yield indexed("cICP behind it", palette + cicp(1, 8, 0, 1))
    yield indexed("gAMA behind it", palette + gama(1.0))
    for bits in (2, 4):
        levels = grey >> (8 - bits)
        parts = levels.reshape(len(grey), -1, 8 // bits)
        shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
        joined = np.bitwise_or.reduce(parts << shifts, axis=-1)
        for value in (1, 1 << bits):
            name = f"PNG, grey of {bits} bits, transparent {value}"
            yield name, header(joined, GREY, bits) + chunk(b"tRNS", bytes((0, value))) + packed(joined) + END, ""
    for name, content in (("of three bytes", b"\0\x80\0"), ("of one byte", b"\x80"), ("above 8 bits", b"\1\x80")):
        yield f"PNG, grey, tRNS {name}", header(grey, GREY) + chunk(b"tRNS", content) + packed(grey) + END, ""
    dark = np.where(rgb[..., :1] < 128, 0, rgb).astype(np.uint8)
    for count in (5, 6, 7):
        name = f"PNG, RGB, tRNS of {count} bytes"
        yield name, header(dark, RGB) + chunk(b"tRNS", bytes(count)) + packed(dark) + END, ""


def _bitmaps(rgb: np.ndarray, grey: np.ndarray) -> Iterator[Row]:
    for name, size, compression, mask, alpha in (
        ("masks, alpha of zeros", 108, 3, 0xFF000000, grey * 0),
        ("masks, alpha", 108, 3, 0xFF000000, grey),
        ("alpha mask alone", 108, 0, 0xFF000000, grey),
        ("alpha mask alone, short header", 56, 0, 0xFF000000, grey),
        ("no alpha mask", 108, 0, 0, grey),
    ):
        yield f"BMP, {name}", bitmap(rgb, alpha, size, compression, mask), ""


def bitmap(rgb: np.ndarray, alpha: np.ndarray, size: int, compression: int, mask: int) -> bytes:
    """A BMP file of 32 bits a pixel; `size` bytes of header, 56 or 108, `mask` is that of alpha."""
    pixels = np.dstack([rgb[..., ::-1], alpha])[::-1].tobytes()
    dib = struct.pack("<IiiHHIIiiII", size, rgb.shape[1], rgb.shape[0], 1, 32, compression, len(pixels), 0, 0, 0, 0)
    dib += struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, mask)
    dib = (dib + b"BGRs" if size > 56 else dib).ljust(size, b"\0")
    return b"BM" + struct.pack("<IHHI", 14 + size + len(pixels), 0, 0, 14 + size) + dib + pixels


def _avif(picture: Image.Image) -> Iterator[Row]:
    data = encode(picture, format="AVIF", quality=95)
    at = data.index(b"colrnclx") + 8
    for points in (
        (1, 1),
        (9, 1),
        (9, 2),
        (9, 3),
        (12, 6),
        (9, 14),
        (9, 19),
        (2, 4),
        (3, 8),
        (13, 8),
        (0, 8),
        (22, 17),
    ):
        changed = data[:at] + struct.pack(">HH", *points) + data[at + 4 :]
        yield f"AVIF, code points {points[0]} and {points[1]}", changed, ""
    # The same bytes where no reader looks: at the end, in a box that says that it is free.
    decoy = b"colrnclx" + struct.pack(">HHHB", 10, 8, 0, 128)
    free = struct.pack(">I4s", len(decoy) + 12, b"free") + struct.pack(">I", len(decoy) + 4) + decoy
    renamed = data[: at - 8] + b"rloc" + data[at - 4 :]
    yield "AVIF, code points in a free box", renamed + free, ""
