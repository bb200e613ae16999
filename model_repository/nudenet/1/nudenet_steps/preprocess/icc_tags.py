"""Curves and tables in the tags of a colour profile; see `icc`.

`nudenet_steps.preprocess` and `nudenet_client` hold the same file; a test keeps the two equal.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np

_MOST_DEVICE, _PCS = 4, 3  # colours of a device, and of XYZ or Lab
_MOST_TABLE_ENTRIES = 4096  # of mft2
_MOST_CURVE_ENTRIES = 40_000  # what all of Chromium's readers take
_EMPTY = "a curve is empty"
# Numbers of a parametric curve of each function type, among g, a, b, c, d, e, f.
_PARAMETERS = ("g", "gab", "gabe", "gabcd", "gabcdef")


class DoubtfulProfile(ValueError):
    """Viewers disagree on what the profile does to colours. The message says why."""


class Unusable(ValueError):
    """The profile is broken; all of Chromium's readers ignore it."""


@dataclass(frozen=True)
class Curve:
    """One channel's curve: parameters g, a, b, c, d, e, f, or else a table of UINT8 or big-endian UINT16."""

    parameters: tuple[float, ...] = (1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    table: np.ndarray | None = field(default=None, compare=False)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Values of any shape, mostly in 0..1; tables are interpolated linearly and end at 0 and 1."""
        if self.table is not None:
            at = np.clip(x, 0, 1) * np.float32(len(self.table) - 1)
            low = at.astype(np.intp)
            values = self.table[low].astype(np.float32)
            rest = at - low
            values += (self.table[np.minimum(low + 1, len(self.table) - 1)] - values) * rest
            return values / np.float32(255 if self.table.dtype.itemsize == 1 else 65535)
        g, a, b, c, d, e, f = self.parameters
        size = np.abs(x)
        with np.errstate(all="ignore"):  # hostile numbers overflow; `colour` clips them
            base = np.maximum(a * size + b, 0)
            power = np.where(base > 0, base ** np.float64(g), 0) + e  # 0 to the power of 0 is 0 to browsers
            return np.where(x < 0, -1, 1) * np.where(size < d, c * size + f, power)


def power(exponent: float) -> Curve:
    """The curve of one number."""
    return Curve((exponent, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0))


def is_plain(curve: Curve) -> bool:
    """Whether a parametric curve rises from 0 to 1 without a jump. Others are kept as tables and need not."""
    if curve.table is not None:
        return True
    values = curve(np.linspace(0, 1, 257))
    steps = np.diff(values)
    is_even = steps.min() > 0 and steps.max() < 0.03  # steeper ones lose dark colours in 8 bits
    return bool(is_even and abs(values[0]) < 0.01 and abs(values[-1] - 1) < 0.01)


@dataclass(frozen=True)
class Table:
    """An A2B tag: input curves, grid, curves, matrix 3x4, output curves; absent ones are empty or None."""

    inputs: tuple[Curve, ...]
    points: tuple[int, ...]  # of the grid, along each input
    grid: np.ndarray  # UINT8 or big-endian UINT16 [points,3]
    curves: tuple[Curve, ...]
    matrix: np.ndarray | None
    outputs: tuple[Curve, ...]


def read_fixed(data: bytes | memoryview, at: int, count: int) -> np.ndarray:
    """s15Fixed16 numbers, FP64 [count]."""
    return np.array(struct.unpack_from(f">{count}i", data, at)) / 65536


def read_xyz(tag: memoryview) -> np.ndarray:
    """FP64 [3]."""
    if bytes(tag[:4]) != b"XYZ ":
        raise Unusable
    return read_fixed(tag, 8, 3)


def read_curve(tag: memoryview, doubts: list[str]) -> tuple[Curve, int]:
    """A curve, and how many bytes of `tag` it takes."""
    kind = bytes(tag[:4])
    if kind == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        end = 12 + 2 * count
        if end > len(tag):
            raise Unusable
        if count == 0:
            doubts.append(_EMPTY)
            return Curve(), end
        if count > _MOST_CURVE_ENTRIES:
            doubts.append("a curve is very large")
        table = np.frombuffer(tag, ">u2", count, 12)
        return power(int(table[0]) / 256) if count == 1 else Curve(table=table), end
    if kind != b"para":
        raise Unusable
    (function,) = struct.unpack_from(">H", tag, 8)
    if function >= len(_PARAMETERS):
        raise Unusable
    names = _PARAMETERS[function]
    end = 12 + 4 * len(names)
    numbers = read_fixed(tag, 12, len(names)).tolist()
    values = {"g": 1.0, "a": 1.0, "b": 0.0, "c": 0.0, "d": 0.0, "e": 0.0, "f": 0.0}
    values.update({name: numbers[i] for i, name in enumerate(names)})
    if function in (1, 2):
        if values["a"] == 0:
            raise Unusable
        values["d"], values["f"] = -values["b"] / values["a"], values["e"]
    g, a, b, c, d, e, f = values.values()
    if min(a, c, d, g, a * d + b) < -1e-9:  # -b / a * a + b is not always zero
        doubts.append("a curve has impossible parameters")
        return Curve(), end
    return Curve((g, a, b, c, d, e, f)), end


def _curves(tag: memoryview, at: int, count: int) -> tuple[Curve, ...]:
    """The curves of one stage of a table, which follow each other."""
    found, kinds = [], set()
    for _ in range(count):
        if at > len(tag):
            raise Unusable
        doubts: list[str] = []
        curve, used = read_curve(tag[at:], doubts)
        kinds.add((curve.table is None, bytes(tag[at : at + 4]), used > 12))
        # An exponent is what one reader takes for a table of one entry; and it mixes up curves of several kinds.
        if kinds == {(True, b"curv", True)} or len(kinds) > 1:
            raise DoubtfulProfile("curves of one number, or of several kinds, in a table")
        if doubts and doubts != [_EMPTY]:
            raise DoubtfulProfile(doubts[0])
        found.append(curve)
        at += (used + 3) & ~3
    return tuple(found)


def read_table(tag: memoryview, is_xyz: bool, to_pcs: bool) -> Table:
    """A table, from the device's colours or, to be checked alone, to them."""
    kind = bytes(tag[:4])
    if kind not in (b"mft1", b"mft2", b"mAB " if to_pcs else b"mBA "):
        raise Unusable
    inputs, outputs, points = struct.unpack_from("3B", tag, 8)
    device, pcs = (inputs, outputs) if to_pcs else (outputs, inputs)
    if pcs != _PCS or device > _MOST_DEVICE:
        raise Unusable
    if kind in (b"mAB ", b"mBA "):
        return _lut(tag, inputs, outputs, is_xyz)
    if device < 1 or points < 2:
        raise Unusable
    # The matrix in the tag's head is for XYZ input alone, which no picture has.
    dtype, at, before, behind = "u1", 48, 256, 256
    if kind == b"mft2":
        before, behind = struct.unpack_from(">2H", tag, 48)
        dtype, at = ">u2", 52
        if not (2 <= before <= _MOST_TABLE_ENTRIES and 2 <= behind <= _MOST_TABLE_ENTRIES):
            raise Unusable
    nodes = points**inputs
    values = inputs * before + nodes * outputs + outputs * behind
    if at + values * np.dtype(dtype).itemsize > len(tag):
        raise Unusable
    flat = np.frombuffer(tag, dtype, values, at)
    first, grid, last = np.split(flat, [inputs * before, inputs * before + nodes * outputs])
    return Table(
        tuple(Curve(table=row) for row in first.reshape(inputs, before)),
        (points,) * inputs,
        grid.reshape(nodes, outputs),
        (),
        None,
        tuple(Curve(table=row) for row in last.reshape(outputs, behind)),
    )


def _lut(tag: memoryview, inputs: int, outputs: int, is_xyz: bool) -> Table:
    """lutAToBType and lutBToAType: each part where its offset says, zero where absent. The latter is checked alone."""
    b_curves, matrix_at, m_curves, grid_at, a_curves = struct.unpack_from(">5I", tag, 12)
    if not b_curves or bool(m_curves) != bool(matrix_at) or bool(a_curves) != bool(grid_at):
        raise DoubtfulProfile("parts of a table are missing")
    last = _curves(tag, b_curves, _PCS)
    middle: tuple[Curve, ...] = ()
    matrix = None
    if m_curves:
        middle = _curves(tag, m_curves, _PCS)
        numbers = read_fixed(tag, matrix_at, 12) * (65535 / 32768 if is_xyz else 1)
        matrix = np.column_stack([numbers[:9].reshape(3, 3), numbers[9:]])
    if not a_curves:
        if inputs != outputs:
            raise DoubtfulProfile("parts of a table are missing")
        return Table((), (), np.empty((0, _PCS), np.uint8), middle, matrix, last)
    first = _curves(tag, a_curves, outputs if bytes(tag[:4]) == b"mBA " else inputs)
    points = struct.unpack_from(f"{inputs}B", tag, grid_at)
    (width,) = struct.unpack_from("B", tag, grid_at + 16)
    nodes = int(np.prod(points, dtype=np.int64))
    if width not in (1, 2) or not inputs or min(points) < 2 or grid_at + 20 + nodes * outputs * width > len(tag):
        raise Unusable
    grid = np.frombuffer(tag, "u1" if width == 1 else ">u2", nodes * outputs, grid_at + 20)
    return Table(first, points, grid.reshape(nodes, outputs), middle, matrix, last)
