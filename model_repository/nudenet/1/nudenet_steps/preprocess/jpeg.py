"""Safe JPEG decoding, scaled down while decoding. No Triton import: usable and testable alone.

libjpeg-turbo decodes at k/8 of the full size, so a 1280x720 frame becomes 320x180 inside the decoder.
Whatever can be refused is refused from the headers, before a pixel is allocated.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import simplejpeg

from nudenet_steps.preprocess import colour, exif, header_edits
from nudenet_steps.preprocess.formats import looks_like

_SOS, _EOI, _APP1 = 0xDA, 0xD9, 0xE1
_PROGRESSIVE = 0xC2
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # DHT, JPG and DAC share the range
# Arithmetic coding, lossless and hierarchical files: browsers as they are shipped do not show them, and some cost
# seconds to decode. Neither do they show more than 8 bits a sample.
_DECODABLE = frozenset({0xC0, 0xC1, _PROGRESSIVE})
_BITS = 8
_FILL = re.compile(rb"\xff+")
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # neither stuffed nor restart: where entropy-coded data ends
_FAST_EIGHTHS = (1, 2, 4)  # libjpeg-turbo has SIMD code for these scales and the full size
_MAX_SIDE = 65500  # libjpeg's JPEG_MAX_DIMENSION
# A file may hold millions of empty segments; an honest one has a few, or hundreds with a large colour profile.
_MAX_SEGMENTS = 2000
# Decoding a multi-scan file costs about 1 ns a pixel and scan, 16 ns a byte and, for the coefficients that it keeps
# in memory between scans (2 bytes a pixel and colour), 4 ns a pixel.
_WORK_PER_BYTE = 16
_WORK_PER_PIXEL = 4


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


class Header(NamedTuple):
    """What the file says of itself: stored size in pixels, scans, EXIF orientation 1..8, colour space.

    `head` is the file up to its entropy-coded data: all segments with the first scan's own header.

    `edits` are harmless oddities of the headers, to be put right before decoding: byte offset and new value.
    `colours` changes decoded pixels to sRGB where the file has a profile of other colours.
    """

    width: int
    height: int
    scans: int
    orientation: int
    colorspace: str
    file_bytes: int
    head: bytes
    edits: header_edits.Edits
    colours: colour.Transform | None

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) in pixels as viewers show the picture."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


# The newest heads of files that can have one scan only: a camera sends the same one with every frame, and reading it
# takes 0.1 ms after another picture has been decoded.
_recent: list[Header] = []
_RECENT = 16
USUAL_BYTES = 4096  # of a head; longer ones hold thumbnails and colour profiles, and are not remembered


def read_header(data: bytes) -> Header:
    """Walk the marker segments; no pixel is decoded.

    Args:
        data: a whole JPEG file.

    Raises:
        JpegError: not a JPEG, damaged before the first scan, or of a kind that is not decoded.
    """
    for known in _recent:
        if data.startswith(known.head):
            return known._replace(file_bytes=len(data))
    header, is_all = _walk_segments(data)
    if is_all and len(header.head) <= USUAL_BYTES:
        _recent.insert(0, header)
        del _recent[_RECENT:]
    return header


def _walk_segments(data: bytes) -> tuple[Header, bool]:
    """See `read_header`; and whether `Header.head` says it all."""
    if not data:
        raise JpegError("empty", "empty: 0 bytes where a JPEG file was expected")
    if data[:3] != b"\xff\xd8\xff":
        raise JpegError("not_jpeg", f"not a JPEG: this is {looks_like(data)}")
    width = height = bits = components = frame = frame_at = orientation = 0
    position, end, edits = 2, len(data), header_edits.HeaderEdits()
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
        payload, after = position + 4, position + 2 + length
        if marker in _SOF and length >= 8 and payload + 6 <= end:
            height = int.from_bytes(data[payload + 1 : payload + 3], "big")
            width = int.from_bytes(data[payload + 3 : payload + 5], "big")
            bits, components, frame, frame_at = data[payload], data[payload + 5], marker, payload
        elif marker == _APP1 and not orientation and exif.is_exif(data[payload:after]):
            orientation = exif.orientation(data[payload + exif.HEADER_BYTES : after])
        else:
            edits.segment(data, marker, payload, after)
        position = after
    else:
        raise JpegError("damaged", f"damaged JPEG: more than {_MAX_SEGMENTS} segments before the first scan")
    if frame and frame not in _DECODABLE:
        raise JpegError(
            "unsupported", f"unsupported kind of JPEG (frame marker ff{frame:02x}): send baseline or progressive"
        )
    if frame and bits != _BITS:
        raise JpegError("unsupported", f"unsupported kind of JPEG: {bits} bits a sample, send one with {_BITS}")
    if not width or not height:
        raise JpegError("damaged", f"damaged JPEG: size {width}x{height}, no usable frame header")
    if max(width, height) > _MAX_SIDE:
        raise JpegError("too_many_pixels", f"{width}x{height}: JPEG decoders stop at {_MAX_SIDE} pixels a side")
    profile = edits.profile(data)  # what comes after the first scan does not count
    # Other files have one scan with all components: libjpeg-turbo ends after it.
    several = frame == _PROGRESSIVE or data[position + 4] != components
    if frame != _PROGRESSIVE:
        edits.sequential_scan(data, position)
    scans = _walk_scans(data, position, frame, edits) if several else 1
    found = edits.finish(components)
    seen_height, seen_width, colorspace = _seen_by_decoder(header_edits.apply(data, found), frame_at, components)
    if (seen_width, seen_height) != (width, height):  # the limits must hold for what the decoder sees
        raise JpegError("damaged", f"damaged JPEG: {width}x{height} and {seen_width}x{seen_height} in one file")
    try:
        colours = colour.transform(profile, components)
    except colour.DoubtfulProfile as doubt:
        raise JpegError(
            "unsupported",
            f"unsupported kind of JPEG: viewers disagree over its colour profile ({doubt}); convert it to sRGB",
        ) from doubt
    head = data[: position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")]
    header = Header(width, height, scans, orientation or 1, colorspace, end, head, found, colours)
    return header, not several


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


def _walk_scans(data: bytes, position: int, frame: int, edits: header_edits.HeaderEdits) -> int:
    """Scans from the one at `position` to the end of the picture; gives up after `_MAX_SEGMENTS`."""
    scans = 0
    for _ in range(_MAX_SEGMENTS):
        marker = data[position + 1]
        if marker == _EOI:
            return scans
        after = position + 2
        if marker >= 0xC0:
            after += int.from_bytes(data[after : after + 2], "big")
        if marker == _SOS:
            scans += 1
            if frame != _PROGRESSIVE and scans > 1 and position + 4 < len(data):
                edits.sequential_scan(data, position)
        else:
            edits.segment(data, marker, position + 4, after)
        found = _NEXT_MARKER.search(data, after)
        if found is None:
            return scans
        position = found.start()
    return _MAX_SEGMENTS


def check_limits(header: Header, limits: Limits) -> None:
    """Refuse by the header what would cost too much to decode.

    Raises:
        JpegError: more pixels or scans than `limits` allows, or than can be decoded with this colour profile.
    """
    pixels = header.width * header.height
    if pixels > limits.max_pixels:
        raise JpegError(
            "too_many_pixels",
            f"{header.width}x{header.height} is {pixels} pixels, the limit is {limits.max_pixels}; "
            "send a smaller picture",
        )
    if header.colours is not None and header.colours.is_rough and pixels > header.colours.most_pixels:
        raise JpegError(
            "unsupported",
            f"{header.width}x{header.height} pixels with a colour profile that bends colours so far that the picture "
            f"cannot be shrunk first; the limit with this profile is {header.colours.most_pixels} pixels: "
            "convert it to sRGB",
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
    """Decode at an eighth, a quarter, half or all of the full size, the least that is not below the size asked for.

    At three, five, six or seven eighths only where that is exactly the size asked for: such steps cost as much as the
    next power of two, and resizing their result once more blurs it (docs/accuracy.md).

    Args:
        data, header: the file and what `read_header` said of it.
        min_width, min_height: upright pixels; a smaller picture is decoded at its full size.
        strict: refuse files that libjpeg-turbo had to patch. Such files decode to grey areas,
            which is a way past moderation.

    Returns:
        sRGB uint8 [h,w,3], upright.

    Raises:
        JpegError: truncated or damaged.
    """
    if header.orientation >= 5:
        min_width, min_height = min_height, min_width
    colours = header.colours
    min_width, min_height = _decoded_size(header, min_width, min_height)
    # Without a profile, ink becomes RGB, too: as stored inverted, with and without Adobe's marker.
    channels = 3 if colours is None else colours.channels
    try:
        pixels = simplejpeg.decode_jpeg(
            header_edits.apply(data, header.edits),
            "RGB" if channels == 3 else "CMYK",
            min_height=min_height,
            min_width=min_width,
            # Where decoding breaks off, new memory would show what was in it before.
            buffer=None if strict else bytearray(min_width * min_height * channels),
            strict=strict,
        )
    except ValueError as error:
        if b"\xff\xd9" not in data[len(header.head) :]:
            raise JpegError("truncated", f"truncated JPEG: its {len(data)} bytes have no end marker") from error
        raise JpegError("damaged", f"damaged JPEG: {error}") from error
    if colours is not None:
        pixels = colours(pixels)
    return pixels if header.orientation == 1 else _upright(pixels, header.orientation)


def _decoded_size(header: Header, min_width: int, min_height: int) -> tuple[int, int]:
    """(width, height) to decode at, as stored."""
    if header.colours is not None and header.colours.is_rough:
        return header.width, header.height
    for eighths in range(1, 8):
        width, height = -(-header.width * eighths // 8), -(-header.height * eighths // 8)
        if (width, height) == (min_width, min_height):
            return width, height
        if eighths in _FAST_EIGHTHS and width >= min_width and height >= min_height:
            return width, height
    return header.width, header.height


def check_size(data: bytes, limits: Limits) -> None:
    """Refuse files over ``limits.max_bytes``.

    Raises:
        JpegError: too large.
    """
    if len(data) > limits.max_bytes:
        raise JpegError("too_many_bytes", f"{len(data)} bytes, the limit is {limits.max_bytes}; send a smaller picture")
