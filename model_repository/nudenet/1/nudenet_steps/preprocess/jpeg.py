"""Safe JPEG decoding, scaled down while decoding. No Triton import: usable and testable alone.

libjpeg-turbo decodes at k/8 of the full size, so a 1280x720 frame becomes 320x180 inside the decoder.
Whatever can be refused is refused from the headers, before a pixel is allocated.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

import numpy as np
import simplejpeg

_ORIENTATION_TAG, _SHORT = 0x0112, 3
_SOS, _EOI, _APP1, _APP14 = 0xDA, 0xD9, 0xE1, 0xEE
_PROGRESSIVE = 0xC2
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # DHT, JPG and DAC share the range
# Arithmetic coding, lossless and hierarchical files: no browser shows them, and some cost seconds to decode.
_DECODABLE = frozenset({0xC0, 0xC1, _PROGRESSIVE})
_FILL = re.compile(rb"\xff+")
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # neither stuffed nor restart: where entropy-coded data ends
_MAX_SIDE = 65500  # libjpeg's JPEG_MAX_DIMENSION
# A file may hold millions of empty segments; an honest one has a few, or hundreds with a large colour profile.
_MAX_SEGMENTS = 2000
# Decoding a multi-scan file costs about 1 ns a pixel and scan, 16 ns a byte and, for the coefficients that it keeps
# in memory between scans (2 bytes a pixel and colour), 4 ns a pixel.
_WORK_PER_BYTE = 16
_WORK_PER_PIXEL = 4

# First bytes of what people send by mistake.
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"GIF8", "a GIF picture"),
    (b"BM", "a BMP picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"%PDF", "a PDF document"),
    (b"\x1f\x8b", "gzip-compressed data"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"/9j/", "base64 text of a JPEG; send the decoded bytes"),
    (b"iVBORw0KGgo", "base64 text of a PNG; send a JPEG's bytes"),
    (b"data:image", "a data: URL; send the decoded bytes"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 picture"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL picture"),
)


class JpegError(ValueError):
    """A picture that is refused. `reason` is a short slug for metrics, the message is for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Limits:
    """What is accepted from strangers. Defaults stand in nudenet_preprocess/config.pbtxt."""

    max_bytes: int = 20_000_000
    max_pixels: int = 50_000_000
    # Progressive files visit the whole picture in every scan: time grows with scans x pixels, and with the bytes.
    max_scans: int = 100
    max_scan_work: int = 500_000_000


@dataclass(frozen=True)
class Header:
    """What the file says of itself: stored size in pixels, scans, EXIF orientation 1..8, colour space."""

    width: int
    height: int
    scans: int
    orientation: int
    colorspace: str
    adobe: bool
    file_bytes: int
    first_scan: int  # byte offset of the first scan's marker

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) in pixels as viewers show the picture."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def looks_like(data: bytes) -> str:
    """What `data`, which is not a JPEG, seems to be: for error messages."""
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "a WebP picture"
    if data[4:8] == b"ftyp":
        return "an AVIF or HEIC picture" if data[8:12] in (b"avif", b"heic", b"heix", b"mif1") else "an MP4 video"
    head = data[:256].lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    if head.startswith((b"{", b"[")):
        return "JSON text"
    if head.startswith((b"<?xml", b"<svg")):
        return "XML or SVG text"
    if not data.strip(b"\0"):
        return f"{len(data)} zero bytes"
    return f"data that starts with {data[:8].hex(' ')}"


def _orientation(tiff: bytes) -> int:
    """EXIF orientation 1..8 out of the TIFF block of an APP1 payload; 1 where it is absent or unreadable."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, directory)
        for entry in range(entries):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, directory + 2 + 12 * entry)
            if tag == _ORIENTATION_TAG:
                return value if kind == _SHORT and 1 <= value <= 8 else 1
    except struct.error:  # the list runs past its end; viewers then show the picture as stored
        pass
    return 1


def read_header(data: bytes) -> Header:
    """Walk the marker segments; no pixel is decoded.

    Args:
        data: a whole JPEG file.

    Raises:
        JpegError: not a JPEG, or damaged before the first scan.
    """
    if not data:
        raise JpegError("empty", "empty: 0 bytes where a JPEG file was expected")
    if data[:3] != b"\xff\xd8\xff":
        raise JpegError("not_jpeg", f"not a JPEG: this is {looks_like(data)}")
    width = height = components = frame = frame_at = 0
    orientation, adobe, position, end = 0, False, 2, len(data)
    for _ in range(_MAX_SEGMENTS):
        fill = _FILL.match(data, position)
        if fill is None and position < end:
            raise JpegError("damaged", f"damaged JPEG: no marker at byte {position}")
        position = fill.end() - 1 if fill else end
        if position + 5 > end:
            raise JpegError("truncated", f"truncated JPEG: {end} bytes end inside the headers")
        marker = data[position + 1]
        if marker == _SOS:
            break
        if marker == _EOI:
            raise JpegError("damaged", "damaged JPEG: ends before its first scan")
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        # Markers without a length (restart and the like) have no business here: decoders would read on differently.
        if length < 2 or marker < 0xC0 or 0xD0 <= marker <= 0xD8:
            raise JpegError("damaged", f"damaged JPEG: marker ff{marker:02x} with length {length} at byte {position}")
        payload = position + 4
        if marker in _SOF and length >= 8 and payload + 6 <= end:
            height = int.from_bytes(data[payload + 1 : payload + 3], "big")
            width = int.from_bytes(data[payload + 3 : payload + 5], "big")
            components, frame, frame_at = data[payload + 5], marker, payload
        elif marker == _APP1 and not orientation and data[payload : payload + 6] == b"Exif\0\0":
            orientation = _orientation(data[payload + 6 : position + 2 + length])
        elif marker == _APP14 and data[payload : payload + 5] == b"Adobe":
            adobe = True
        position += 2 + length
    else:
        raise JpegError("damaged", f"damaged JPEG: more than {_MAX_SEGMENTS} segments before the first scan")
    if frame and frame not in _DECODABLE:
        raise JpegError(
            "unsupported", f"unsupported kind of JPEG (frame marker ff{frame:02x}): send baseline or progressive"
        )
    if not width or not height:
        raise JpegError("damaged", f"damaged JPEG: size {width}x{height}, no usable frame header")
    if max(width, height) > _MAX_SIDE:
        raise JpegError("too_many_pixels", f"{width}x{height}: JPEG decoders stop at {_MAX_SIDE} pixels a side")
    seen_height, seen_width, colorspace = _seen_by_decoder(data, frame_at, components)
    if (seen_width, seen_height) != (width, height):  # the limits must hold for what the decoder sees
        raise JpegError("damaged", f"damaged JPEG: {width}x{height} and {seen_width}x{seen_height} in one file")
    # Other files have one scan with all components: libjpeg-turbo ends after it.
    several = frame == _PROGRESSIVE or data[position + 4] != components
    scans = _count_scans(data, position) if several else 1
    return Header(width, height, scans, orientation or 1, colorspace, adobe, end, position)


def _seen_by_decoder(data: bytes, frame_at: int, components: int) -> tuple[int, int, str]:
    """Height, width and colour space as the decoder sees them.

    Args:
        frame_at: where the frame header's payload begins.

    Raises:
        JpegError: the decoder does not take it.
    """
    try:
        try:
            return simplejpeg.decode_jpeg_header(data)[:3]
        except KeyError:  # simplejpeg 1.9 decodes 4:4:1 but has no name for it: ask again with another subsampling
            plain = bytearray(data)
            first = frame_at + 7
            plain[first : first + 3 * components : 3] = bytes([0x11]) * components
            return simplejpeg.decode_jpeg_header(bytes(plain))[:3]
    except ValueError as error:
        raise JpegError("damaged", f"damaged JPEG: {error}") from error


def _count_scans(data: bytes, position: int) -> int:
    """Scans from the one at `position` to the end of the picture; gives up after `_MAX_SEGMENTS`."""
    scans = 0
    for _ in range(_MAX_SEGMENTS):
        marker = data[position + 1]
        scans += marker == _SOS
        if marker == _EOI:
            return scans
        position += 2
        if marker >= 0xC0:
            position += int.from_bytes(data[position : position + 2], "big")
        found = _NEXT_MARKER.search(data, position)
        if found is None:
            return scans
        position = found.start()
    return _MAX_SEGMENTS


def check_limits(header: Header, limits: Limits) -> None:
    """Refuse by the header what would cost too much to decode.

    Raises:
        JpegError: more pixels or scans than `limits` allows.
    """
    pixels = header.width * header.height
    if pixels > limits.max_pixels:
        raise JpegError(
            "too_many_pixels",
            f"{header.width}x{header.height} is {pixels} pixels, the limit is {limits.max_pixels}; "
            "send a smaller picture",
        )
    if header.scans > limits.max_scans:
        raise JpegError(
            "too_many_scans", f"{header.scans} scans, the limit is {limits.max_scans}; send a baseline JPEG"
        )
    work = (header.scans + _WORK_PER_PIXEL) * pixels + _WORK_PER_BYTE * header.file_bytes
    if header.scans > 1 and work > limits.max_scan_work:
        raise JpegError(
            "too_many_scans",
            f"{header.scans} scans of {header.width}x{header.height} pixels in {header.file_bytes} bytes cost {work} "
            f"((scans + {_WORK_PER_PIXEL}) x pixels + {_WORK_PER_BYTE} x bytes), the limit is {limits.max_scan_work}; "
            "send a baseline JPEG",
        )


def _cmyk_to_rgb(cmyk: np.ndarray, adobe: bool) -> np.ndarray:
    """uint8 [h,w,4] to RGB uint8 [h,w,3]. Adobe's files store ink inverted."""
    ink = cmyk.astype(np.uint16) if adobe else 255 - cmyk.astype(np.uint16)
    return ((ink[..., :3] * ink[..., 3:] + 127) // 255).astype(np.uint8)


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn stored pixels [h,w,3] the way EXIF `orientation` 2..8 asks."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def decode(data: bytes, header: Header, min_width: int, min_height: int, strict: bool = True) -> np.ndarray:
    """Decode at the smallest eighth of the full size that is not below `min_width` x `min_height`.

    Args:
        data, header: the file and what `read_header` said of it.
        min_width, min_height: upright pixels; a smaller picture is decoded at its full size.
        strict: refuse files that libjpeg-turbo had to patch. Such files decode to grey areas,
            which is a way past moderation.

    Returns:
        RGB uint8 [h,w,3], upright.

    Raises:
        JpegError: truncated or damaged.
    """
    if header.orientation >= 5:
        min_width, min_height = min_height, min_width
    cmyk = header.colorspace in ("CMYK", "YCCK")
    try:
        pixels = simplejpeg.decode_jpeg(
            data, "CMYK" if cmyk else "RGB", min_height=min_height, min_width=min_width, strict=strict
        )
    except ValueError as error:
        if data.find(b"\xff\xd9", header.first_scan) < 0:
            raise JpegError("truncated", f"truncated JPEG: its {len(data)} bytes have no end marker") from error
        raise JpegError("damaged", f"damaged JPEG: {error}") from error
    if cmyk:
        pixels = _cmyk_to_rgb(pixels, header.adobe)
    return pixels if header.orientation == 1 else _upright(pixels, header.orientation)


def check_size(data: bytes, limits: Limits) -> None:
    """Refuse files over ``limits.max_bytes``.

    Raises:
        JpegError: too large.
    """
    if len(data) > limits.max_bytes:
        raise JpegError("too_many_bytes", f"{len(data)} bytes, the limit is {limits.max_bytes}; send a smaller picture")
