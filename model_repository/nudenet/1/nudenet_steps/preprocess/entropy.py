"""How the entropy-coded data of a baseline JPEG file is to be read, for `gpu_damage`. Pure Python and numpy.

Only files with one interleaved scan of three components are described; for all others there is None, which means that
the CPU has to decode them.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nudenet_steps.preprocess.header_edits import ADOBE, YCBCR
from nudenet_steps.preprocess.jpeg import USUAL_BYTES

_SOF0, _DHT, _SOS, _DQT, _DRI, _APP0, _APP14, _COM = 0xC0, 0xC4, 0xDA, 0xDB, 0xDD, 0xE0, 0xEE, 0xFE
_COMPONENTS, _MAX_BLOCKS = 3, 10  # of a scan; in a minimum coded unit, by the standard
_MAX_CODE = 16  # bits of a Huffman code
LOOK_BITS = 10
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")

# What symbols say, see `_symbol`: `look` by the next bits, with the code's length added, 0 where it is longer;
# `symbols` in the order of the codes. By code length: `limit`, which the next 16 bits are below if the code is no
# longer, and `offset`, which makes a code an index into `symbols`.
TABLE = np.dtype(
    [
        ("look", "u4", 1 << LOOK_BITS),
        ("limit", "u4", _MAX_CODE + 1),
        ("offset", "i4", _MAX_CODE + 1),
        ("symbols", "u4", 256),
    ],
    align=True,
)
# Tables for DC and AC of each component, its quantizers in the order of the file; `component` of each block of a
# minimum coded unit.
CODING = np.dtype(
    [
        ("tables", TABLE, (_COMPONENTS, 2)),
        ("quantizers", "u2", (_COMPONENTS, 64)),
        ("blocks", "i4"),
        ("component", "u1", _MAX_BLOCKS + 2),
    ],
    align=True,
)


class Interval(NamedTuple):
    """Entropy-coded data between two restart markers: bytes [start,end) of the file, and the blocks it must hold."""

    start: int
    end: int
    blocks: int


@dataclass(frozen=True)
class Coding:
    """What the headers say."""

    tables: np.ndarray  # of dtype CODING, [1]
    units: int  # minimum coded units in the picture
    restart: int  # units between restart markers; 0: there are none

    @property
    def blocks(self) -> int:
        """Blocks of 8x8 coefficients in a unit."""
        return int(self.tables["blocks"][0])


def headers(head: bytes) -> bytes | None:
    """Everything before a file's entropy-coded data that decoding depends on: all segments but comments and those of
    applications other than JFIF and Adobe. None where something stands between segments.

    Args:
        head: `jpeg.Header.head`.
    """
    return _headers(head) if len(head) <= USUAL_BYTES else _headers.__wrapped__(head)


@functools.lru_cache(maxsize=256)  # a camera sends the same head with every frame
def _headers(head: bytes) -> bytes | None:
    found = _segments(head)
    if found is None:
        return None
    kept = [
        head[start:end]
        for marker, start, end in found
        if not (_APP0 < marker <= 0xEF and marker != _APP14) and marker != _COM
    ]
    return b"".join(kept)


def read(head: bytes) -> Coding | None:
    """How to read the entropy-coded data of a file; None where the GPU cannot check it.

    Args:
        head: `jpeg.Header.head`.
    """
    codes: dict[int, np.ndarray] = {}  # by class and number: 0x00 to 0x03 for DC, 0x10 to 0x13 for AC
    quantizers: dict[int, bytes] = {}  # by number
    once: dict[int, bytes] = {}  # payloads of segments that may come once
    for marker, start, end in _segments(head) or ():
        payload = head[start + 4 : end]
        if marker in (_DHT, _DQT):
            found = _huffman_tables(payload) if marker == _DHT else _quantizers(payload)
            tables: dict = codes if marker == _DHT else quantizers
            if found is None or tables.keys() & found.keys():
                return None
            tables |= found
        elif marker in (_SOF0, _SOS, _DRI) and marker not in once:
            once[marker] = payload
        elif marker == _APP14 and payload.startswith(ADOBE) and payload[11:12] != bytes([YCBCR]):
            return None  # decoders disagree over it where JFIF says otherwise
        elif marker < _APP0:  # another frame, arithmetic conditioning, heights that come later
            return None
    frame, scan, restart = once.get(_SOF0, b""), once.get(_SOS, b""), once.get(_DRI, bytes(2))
    if len(frame) != 6 + 3 * _COMPONENTS or len(scan) != 1 + 2 * _COMPONENTS + 3 or len(restart) != 2:
        return None
    return _coding(frame, scan, codes, quantizers, int.from_bytes(restart, "big"))


def intervals(data: bytes, start: int, coding: Coding) -> list[Interval] | None:
    """Where the file's entropy-coded data lies; all of it is one interval where there are no restart markers.

    None where there is nothing, or restart markers are missing or out of order; other markers are not looked for.

    Args:
        data: a file that ends with its end marker.
        start: byte offset of its entropy-coded data, the length of `jpeg.Header.head`.
        coding: from `read` of a file with the same headers.
    """
    end = len(data) - 2
    if end <= start:
        return None
    if not coding.restart:
        return [Interval(start, end, coding.units * coding.blocks)]
    markers = [(one.start(), one[1][0]) for one in _RESTART.finditer(data, start, end)]
    if [number for _, number in markers] != [0xD0 + i % 8 for i in range(-(-coding.units // coding.restart) - 1)]:
        return None
    starts, ends = [start, *(at + 2 for at, _ in markers)], [*(at for at, _ in markers), end]
    blocks = [coding.restart * coding.blocks] * len(markers)
    blocks.append(coding.units * coding.blocks - sum(blocks))
    return [Interval(*one) for one in zip(starts, ends, blocks, strict=True)]


def _segments(head: bytes) -> list[tuple[int, int, int]] | None:
    """Marker, start and end of each segment up to that of the scan; None where fill bytes stand in between."""
    found, position = [], 2
    while position < len(head):
        if head[position + 1] == 0xFF:
            return None
        end = position + 2 + int.from_bytes(head[position + 2 : position + 4], "big")
        found.append((head[position + 1], position, end))
        position = end
    return found


def _huffman_tables(payload: bytes) -> dict[int, np.ndarray] | None:
    """The tables of a DHT segment by class and number; None where it is not well-formed."""
    found = {}
    position = 0
    while position < len(payload):
        which, counts = payload[position], payload[position + 1 : position + 1 + _MAX_CODE]
        values = payload[position + 1 + _MAX_CODE :][: sum(counts)]
        if which & 0xEF > 3 or len(counts) < _MAX_CODE or len(values) < sum(counts) or len(values) > 256:
            return None
        table = np.zeros((), TABLE)
        symbols = [_symbol(value, is_dc=which < 0x10) for value in values]
        table["symbols"][: len(symbols)] = symbols
        code = index = 0
        for length, count in enumerate(counts, 1):
            if code + count > 1 << length:
                return None
            table["limit"][length] = code + count << _MAX_CODE - length
            table["offset"][length] = index - code
            if length <= LOOK_BITS:
                shift = LOOK_BITS - length
                for i in range(count):
                    table["look"][code + i << shift : code + i + 1 << shift] = length + symbols[index + i]
            code, index = code + count << 1, index + count
        found[which] = table
        position += 1 + _MAX_CODE + len(values)
    return found


def _symbol(value: int, is_dc: bool) -> int:
    """Four bytes, lowest first: bits that follow the code; how many coefficients it moves on, 64 to the block's end;
    bits of a coefficient's value; 1 for what no encoder writes.
    """
    run, size = value >> 4, value & 15
    if is_dc:
        step, is_odd = 1, value > 11
    elif size:
        step, is_odd = run + 1, size > 10
    else:
        step, is_odd = (16 if run == 15 else 64), run not in (0, 15)
    return size | step << 8 | size << 16 | is_odd << 24


def _quantizers(payload: bytes) -> dict[int, bytes] | None:
    """The tables of a DQT segment by number; None where it is not well-formed, or has more than eight bits."""
    numbers, tables = payload[::65], [payload[i + 1 : i + 65] for i in range(0, len(payload), 65)]
    if len(payload) % 65 or max(numbers, default=4) > 3 or len(set(numbers)) < len(numbers):
        return None
    return dict(zip(numbers, tables, strict=True))


def _coding(
    frame: bytes, scan: bytes, codes: dict[int, np.ndarray], quantizers: dict[int, bytes], restart: int
) -> Coding | None:
    """The description made of the payloads of frame and scan, and of all tables."""
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    factors = {frame[i]: (frame[i + 1] >> 4, frame[i + 1] & 15) for i in range(6, len(frame), 3)}
    order = [(scan[i], scan[i + 1]) for i in range(1, 1 + 2 * _COMPONENTS, 2)]
    # Two components of one name: decoders need not agree which is which.
    if frame[5] != _COMPONENTS or scan[0] != _COMPONENTS or [one for one, _ in order] != list(factors):
        return None
    tables = np.zeros(1, CODING)
    blocks: list[int] = []
    for i, (component, chosen) in enumerate(order):
        horizontal, vertical = factors[component]
        dc, ac = codes.get(chosen >> 4), codes.get(0x10 | chosen & 15)
        steps = quantizers.get(frame[8 + 3 * i])
        if dc is None or ac is None or steps is None or not (1 <= horizontal <= 4 and 1 <= vertical <= 4):
            return None
        tables["tables"][0, i] = [dc, ac]
        tables["quantizers"][0, i] = list(steps)
        blocks += [i] * (horizontal * vertical)
    if len(blocks) > _MAX_BLOCKS:
        return None
    tables["blocks"], tables["component"][0, : len(blocks)] = len(blocks), blocks
    widest, highest = (max(factor[axis] for factor in factors.values()) for axis in (0, 1))
    return Coding(tables, -(-width // (8 * widest)) * -(-height // (8 * highest)), restart)
