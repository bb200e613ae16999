"""Damaged, hostile and mistaken pictures, made from nothing or from a good JPEG. Shared by unit and server tests."""

from __future__ import annotations

import gzip
import io
import json
import struct

import numpy as np
import simplejpeg
from PIL import Image

EOI = b"\xff\xd9"


def encode(picture: Image.Image, **options) -> bytes:
    """The picture as a JPEG file."""
    target = io.BytesIO()
    picture.save(target, options.pop("format", "JPEG"), **options)
    return target.getvalue()


def photo(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """A smooth picture with structure and different corners; compresses with small errors."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    planes = [255 * x, 255 * y, 127 + 100 * np.sin(6 * x + 4 * y)]
    return Image.fromarray(np.stack(planes, -1).astype(np.uint8), "RGB").convert(mode)


def segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def scan_start(data: bytes) -> int:
    """Byte offset of the entropy-coded data of the first scan of a plain file."""
    position = 2
    while data[position + 1] != 0xDA:
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")


def with_size(data: bytes, width: int, height: int) -> bytes:
    """The file with another size in its frame header; the data stays."""
    position = 2
    while data[position + 1] not in (0xC0, 0xC2):
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return data[: position + 5] + struct.pack(">HH", height, width) + data[position + 9 :]


def subsampled_441(width: int, height: int, colour: tuple[int, int, int]) -> bytes:
    """A plain picture with one colour sample for four rows, as turning a 4:1:1 file without loss makes it.

    Args:
        width, height: multiples of 8 and 32.
    """
    pixels = np.full((height // 4, width * 4, 3), colour, np.uint8)
    data = bytearray(with_size(simplejpeg.encode_jpeg(pixels, quality=95, colorsubsampling="411"), width, height))
    frame = data.index(b"\xff\xc0")
    assert data[frame + 11] == 0x41
    data[frame + 11] = 0x14
    return bytes(data)


def with_exif_orientation(data: bytes, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return data[:2] + segment(0xE1, exif.tobytes()) + data[2:]


def with_hole(data: bytes, length: int = 2000) -> bytes:
    """Bytes missing from the middle of the entropy-coded data."""
    middle = (scan_start(data) + len(data)) // 2
    return data[: middle - length // 2] + data[middle + length // 2 :]


def progressive_bomb(width: int, height: int, scans: int, components: int = 3) -> bytes:
    """A valid progressive JPEG of one flat colour that makes the decoder visit every coefficient in every scan.

    Successive approximation allows 14 passes over each colour; a scan of zero coefficients takes a few bytes
    for each 32,767 blocks, so seconds of work fit into kilobytes. Up to 1 + 14 x components scans.
    """
    blocks = -(-width // 8) * -(-height // 8)
    frame = struct.pack(">BHHB", 8, height, width, components)
    frame += b"".join(bytes([number, 0x11, 0]) for number in range(1, components + 1))
    data = b"\xff\xd8" + segment(0xDB, b"\0" + b"\1" * 64) + segment(0xC2, frame)
    data += segment(0xC4, b"\x00" + bytes([1] + [0] * 15) + b"\0")  # DC: no difference, one bit
    data += segment(0xC4, b"\x10" + bytes([0] * 4 + [15] + [0] * 11) + bytes(n << 4 for n in range(15)))  # runs of ends
    everything = b"".join(bytes([number, 0]) for number in range(1, components + 1))
    bits = blocks * components
    data += segment(0xDA, bytes([components]) + everything + b"\0\0\0") + bytes(-(-bits // 8))
    value = length = 0
    left = blocks
    for power in range(14, -1, -1):  # one code ends 2^power .. 2^(power+1)-1 blocks
        while left >= 1 << power:
            run = min(left, (2 << power) - 1)
            value, length = value << 5 + power | power << power | run - (1 << power), length + 5 + power
            left -= run
    padding = -length % 8
    body = (value << padding | (1 << padding) - 1).to_bytes((length + padding) // 8, "big").replace(b"\xff", b"\xff\0")
    passes = [(c, low) for low in range(13, -1, -1) for c in range(1, components + 1)][: scans - 1]
    assert len(passes) == scans - 1
    for component, low in passes:
        high = 0 if low == 13 else low + 1
        data += segment(0xDA, bytes([1, component, 0, 1, 63, high << 4 | low])) + body
    return data + EOI


def many_scans(scans: int) -> bytes:
    """A small progressive file that repeats its last scan."""
    data = encode(photo(64, 64), progressive=True)
    last = data.rfind(b"\xff\xda")
    repeated = scans - data.count(b"\xff\xda")
    return data[:-2] + data[last:-2] * repeated + EOI


def png(width: int = 32, height: int = 32) -> bytes:
    return encode(photo(width, height), format="PNG")


def bad_pictures(good: bytes) -> dict[str, tuple[bytes, str, str]]:
    """name -> (file, reason slug, part of the message a person gets)."""
    scan = segment(0xDA, bytes([3, 1, 0, 2, 0, 3, 0, 0, 63, 0]))
    body = scan_start(good)
    return {
        "empty": (b"", "empty", "0 bytes where a JPEG file was expected"),
        "png": (png(), "not_jpeg", "this is a PNG picture"),
        "gif": (encode(photo(9, 9), format="GIF"), "not_jpeg", "this is a GIF picture"),
        "webp": (encode(photo(9, 9), format="WEBP"), "not_jpeg", "this is a WebP picture"),
        "bmp": (encode(photo(9, 9), format="BMP"), "not_jpeg", "this is a BMP picture"),
        "html": (b"<!DOCTYPE html><html><body>404</body></html>", "not_jpeg", "this is an HTML page"),
        "json": (json.dumps({"error": "gone"}).encode(), "not_jpeg", "this is JSON text"),
        "base64": (
            b"/9j/4AAQSkZJRgABAQAAAQABAAD",
            "not_jpeg",
            "base64 text of a JPEG; send the decoded bytes, or the parameter encoding=base64",
        ),
        "zeros": (bytes(1000), "not_jpeg", "this is 1000 zero bytes"),
        "gzip": (gzip.compress(good[:100]), "not_jpeg", "this is gzip-compressed data"),
        "one byte": (b"\xff", "not_jpeg", "starts with ff"),
        "start marker only": (good[:3], "truncated", "end inside the headers"),
        "headers only": (good[: body - 20], "truncated", "end inside the headers"),
        "truncated": (good[: len(good) // 2], "truncated", "have no end marker"),
        "last bytes missing": (good[:-300], "truncated", "have no end marker"),
        "truncated with a fresh end marker": (good[: len(good) // 2] + EOI, "damaged", "damaged JPEG"),
        "hole in the middle": (with_hole(good), "damaged", "damaged JPEG"),
        "zeroed in the middle": (good[:-9000] + bytes(4000) + good[-5000:], "damaged", "damaged JPEG"),
        "no scan": (good[:20] + EOI + bytes(9), "damaged", "ends before its first scan"),
        "no frame": (b"\xff\xd8" + scan + bytes(99) + EOI, "damaged", "no usable frame header"),
        "zero height": (with_size(good, 1280, 0), "damaged", "1280x0"),
        "zero width": (with_size(good, 0, 720), "damaged", "0x720"),
        "dimension bomb": (with_size(good, 65500, 65500), "too_many_pixels", "65500x65500 is 4290250000 pixels"),
        "beyond any decoder": (
            with_size(good, 65535, 65535),
            "too_many_pixels",
            "65535x65535: JPEG decoders stop at 65500",
        ),
        "a million empty segments": (good[:2] + b"\xff\xe5\0\2" * 10**6 + good[2:], "damaged", "segments before"),
        "restart marker among the headers": (good[:2] + b"\xff\xd0" + good[2:], "damaged", "marker ffd0"),
        "arithmetic coding": (good.replace(b"\xff\xc0", b"\xff\xc9", 1), "unsupported", "send baseline or progressive"),
        "lossless": (good.replace(b"\xff\xc0", b"\xff\xc3", 1), "unsupported", "send baseline or progressive"),
        "500 scans": (many_scans(500), "too_many_scans", "500 scans, the limit is 100"),
        "progressive bomb": (progressive_bomb(6000, 6000, 43), "too_many_scans", "43 scans of 6000x6000 pixels"),
        "too many bytes": (good + bytes(20_000_000), "too_many_bytes", "the limit is 20000000"),
    }
