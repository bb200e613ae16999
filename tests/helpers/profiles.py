"""ICC colour profiles of any kind, good and hostile, built from their tags."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

import numpy as np

Tags = dict[bytes, bytes]

# Columns: X, Y, Z of red, green and blue, adapted to D50.
SRGB = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
DISPLAY_P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
ADOBE_RGB = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
PROPHOTO = ((0.7977, 0.2880, 0.0), (0.1352, 0.7119, 0.0), (0.0313, 0.0001, 0.8249))
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_D50 = (0.9642, 1.0, 0.8249)


def fixed(*values: float) -> bytes:
    """s15Fixed16 numbers."""
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def xyz(values: Sequence[float]) -> bytes:
    """An XYZ tag."""
    return b"XYZ \0\0\0\0" + fixed(*values)


def para(kind: int, *values: float) -> bytes:
    """A parametric curve of function type 0 to 4."""
    return b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + fixed(*values)


def curv(values: Sequence[float] | np.ndarray) -> bytes:
    """A sampled curve of values 0..1; none is the identity."""
    table = np.round(np.clip(np.asarray(values, float), 0, 1) * 65535).astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", len(table)) + table.tobytes()


def gamma(exponent: float) -> bytes:
    """A curve of one number."""
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(exponent * 256))


SRGB_PARA = para(3, *SRGB_CURVE)


def build(
    tags: Tags,
    space: bytes = b"RGB ",
    pcs: bytes = b"XYZ ",
    version: int = 4,
    kind: bytes = b"mntr",
    white: Sequence[float] = _D50,
    signature: bytes = b"acsp",
) -> bytes:
    """A whole profile."""
    head = struct.pack(">I4sI4s4s4s12x4s", 0, b"none", version << 24, kind, space, pcs, signature)
    head = head.ljust(68, b"\0") + fixed(*white)
    table, content, offset = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, tag in tags.items():
        table += struct.pack(">4sII", name[:4], offset + len(content), len(tag))
        content += tag + bytes(-len(tag) % 4)
    data = head.ljust(128, b"\0") + table + content
    return struct.pack(">I", len(data)) + data[4:]


def matrix_tags(primaries: Sequence[Sequence[float]] = SRGB, curves: bytes | Sequence[bytes] = SRGB_PARA) -> Tags:
    """The six tags of a profile of primaries and curves."""
    red, green, blue = [curves] * 3 if isinstance(curves, bytes) else curves
    r, g, b = primaries
    return {b"rXYZ": xyz(r), b"gXYZ": xyz(g), b"bXYZ": xyz(b), b"rTRC": red, b"gTRC": green, b"bTRC": blue}


def matrix(primaries: Sequence[Sequence[float]] = SRGB, curves: bytes | Sequence[bytes] = SRGB_PARA, **head) -> bytes:
    """A profile of primaries and curves."""
    return build(matrix_tags(primaries, curves), **head)


def grey(curve: bytes, **head) -> bytes:
    """A profile of one curve."""
    return build({b"kTRC": curve}, space=b"GRAY", **head)


def lut(
    colour: Callable[[np.ndarray], np.ndarray], channels: int = 3, points: int = 9, bits: int = 16, form: str = "mft"
) -> bytes:
    """A table tag (A2B0 and the like).

    Args:
        colour: values [n,channels] in 0..1 to what the tag holds [n,3], in 0..1: Lab as L/100, (a+128)/255 and
            (b+128)/255.
        form: mft (mft1 or mft2 by `bits`) or mAB.
    """
    axes = np.meshgrid(*[np.linspace(0, 1, points)] * channels, indexing="ij")
    values = np.clip(colour(np.stack([axis.ravel() for axis in axes], -1)), 0, 1)
    grid = np.round(values * (2**bits - 1)).astype(">u2" if bits == 16 else "u1").tobytes()
    if form == "mAB":
        curve = curv([])
        offsets = [32, 0, 0, 32 + 12 * 3 + 12 * channels, 32 + 12 * 3]
        body = curve * 3 + curve * channels + bytes([points] * channels).ljust(16, b"\0") + bytes([bits // 8, 0, 0, 0])
        return b"mAB \0\0\0\0" + bytes([channels, 3, 0, 0]) + struct.pack(">5I", *offsets) + body + grid + bytes(4)
    head = bytes([channels, 3, points, 0]) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    if bits == 8:
        ramp = bytes(range(256))
        return b"mft1\0\0\0\0" + head + ramp * channels + grid + ramp * 3
    ramp = struct.pack(">2H", 0, 65535)
    return b"mft2\0\0\0\0" + head + struct.pack(">2H", 2, 2) + ramp * channels + grid + ramp * 3


def lut_parts(
    b_curves: Sequence[bytes],
    matrix: Sequence[float] = (),
    m_curves: Sequence[bytes] = (),
    grid: np.ndarray | None = None,
    a_curves: Sequence[bytes] = (),
) -> bytes:
    """A table tag of type mAB with all its parts.

    Args:
        matrix: 3x3 and three offsets, by rows.
        grid: UINT8 [points,...,3], one axis for each channel.
    """
    channels = 3 if grid is None else grid.ndim - 1
    parts = {
        "b": _padded(b_curves),
        "matrix": fixed(*matrix),
        "m": _padded(m_curves),
        "grid": b"",
        "a": _padded(a_curves),
    }
    if grid is not None:
        parts["grid"] = bytes(grid.shape[:-1]).ljust(16, b"\0") + b"\1\0\0\0" + _padded([grid.tobytes() + bytes(4)])
    offsets, at = [], 32
    for part in parts.values():
        offsets.append(at if part else 0)
        at += len(part)
    return b"mAB \0\0\0\0" + bytes([channels, 3, 0, 0]) + struct.pack(">5I", *offsets) + b"".join(parts.values())


def _padded(pieces: Sequence[bytes]) -> bytes:
    return b"".join(piece + bytes(-len(piece) % 4) for piece in pieces)


def lab(srgb: np.ndarray) -> np.ndarray:
    """sRGB values [n,3] in 0..1 as Lab, as `lut` takes it."""
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    relative = linear @ np.array(SRGB) / _D50
    f = np.where(relative > 0.008856, np.cbrt(relative), 7.787 * relative + 16 / 116)
    return np.stack(
        [1.16 * f[:, 1] - 0.16, (500 * (f[:, 0] - f[:, 1]) + 128) / 255, (200 * (f[:, 1] - f[:, 2]) + 128) / 255], -1
    )


def ink(values: np.ndarray) -> np.ndarray:
    """CMYK in 0..1 as plain sRGB."""
    return (1 - values[:, :3]) * (1 - values[:, 3:])


def cicp(primaries: int, transfer: int, matrix: int = 0, full: int = 1) -> bytes:
    """A tag of coding-independent code points."""
    return b"cicp\0\0\0\0" + bytes([primaries, transfer, matrix, full])
