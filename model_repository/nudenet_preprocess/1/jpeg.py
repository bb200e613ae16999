"""Safe JPEG decoding, scaled down while decoding. No Triton import: usable and testable alone.

libjpeg-turbo decodes at k/8 of the full size, so a 1280x720 frame becomes 320x180 inside the decoder.
Whatever can be refused is refused from the headers, before a pixel is allocated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import simplejpeg
from PIL import Image

SOS = b"\xff\xda"
_ORIENTATION_TAG = 0x0112
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # DHT, JPG and DAC share the range

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
    # Progressive files repeat the whole picture in every scan: time grows with scans x pixels.
    max_scans: int = 100
    max_scan_pixels: int = 500_000_000


@dataclass(frozen=True)
class Header:
    """What the file says of itself: stored size in pixels, scans, EXIF orientation 1..8, colour space."""

    width: int
    height: int
    scans: int
    orientation: int
    colorspace: str
    adobe: bool

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


def _orientation(exif: bytes) -> int:
    """EXIF orientation 1..8 out of an APP1 payload; 1 where it is absent or unreadable."""
    reader = Image.Exif()
    try:
        reader.load(exif)
        value = reader.get(_ORIENTATION_TAG, 1)
    except Exception:  # Pillow raises many kinds on hostile EXIF; viewers then show the picture as stored
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def read_header(data: bytes) -> Header:
    """Walk the marker segments up to the first scan; no pixel is decoded.

    Args:
        data: a whole JPEG file.

    Raises:
        JpegError: not a JPEG, or damaged before the first scan.
    """
    if not data:
        raise JpegError("empty", "empty: 0 bytes where a JPEG file was expected")
    if data[:3] != b"\xff\xd8\xff":
        raise JpegError("not_jpeg", f"not a JPEG: this is {looks_like(data)}")
    width = height = 0
    components, progressive = 0, False
    orientation, adobe, position, end = 1, False, 2, len(data)
    while position + 4 <= end:
        if data[position] != 0xFF:
            raise JpegError("damaged", f"damaged JPEG: no marker at byte {position}")
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker == 0xDA:
            break
        if marker == 0xD9:
            raise JpegError("damaged", "damaged JPEG: ends before its first scan")
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if length < 2:
            raise JpegError("damaged", f"damaged JPEG: segment of {length} bytes at byte {position}")
        payload = position + 4
        if marker in _SOF and length >= 8 and payload + 6 <= end:
            height = int.from_bytes(data[payload + 1 : payload + 3], "big")
            width = int.from_bytes(data[payload + 3 : payload + 5], "big")
            components, progressive = data[payload + 5], marker in _PROGRESSIVE
        elif marker == 0xE1 and data[payload : payload + 6] == b"Exif\0\0":
            orientation = _orientation(data[payload : position + 2 + length])
        elif marker == 0xEE and data[payload : payload + 5] == b"Adobe":
            adobe = True
        position += 2 + length
    else:
        raise JpegError("truncated", f"truncated JPEG: {end} bytes end inside the headers")
    if not width or not height:
        raise JpegError("damaged", f"damaged JPEG: size {width}x{height}, no usable frame header")
    try:
        _, _, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise JpegError("damaged", f"damaged JPEG: {error}") from error
    scans = 1
    if progressive or data[position + 4] != components:
        # Entropy-coded bytes never hold 0xFFDA, so this count can only be too high, never too low.
        # Other files have one scan with all components: libjpeg-turbo refuses a second one.
        scans = data.count(SOS, position)
    return Header(width, height, scans, orientation, colorspace, adobe)


def check_limits(header: Header, limits: Limits) -> None:
    """Refuse by the header what would cost too much to decode.

    Raises:
        JpegError: more pixels or scans than `limits` allows.
    """
    pixels = header.width * header.height
    if pixels > limits.max_pixels:
        raise JpegError(
            "too_many_pixels",
            f"{header.width}x{header.height} is {pixels} pixels, the limit is {limits.max_pixels}; send a smaller picture",
        )
    if header.scans > limits.max_scans or (header.scans > 1 and header.scans * pixels > limits.max_scan_pixels):
        raise JpegError(
            "too_many_scans",
            f"{header.scans} scans of {pixels} pixels; the limits are {limits.max_scans} scans and "
            f"{limits.max_scan_pixels} pixels over all scans; send a baseline JPEG",
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
        raise JpegError("damaged", f"damaged or truncated JPEG: {error}") from error
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
