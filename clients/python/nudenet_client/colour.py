"""Colours of a picture with a profile to sRGB, as Chromium shows them (Skia's skcms). Pure numpy.

`nudenet_steps.preprocess` and `nudenet_client` hold the same file; a test keeps the two equal.
"""

from __future__ import annotations

import functools

import numpy as np

from . import colour_spaces, icc, icc_tags
from .icc_tags import DoubtfulProfile

# Linear sRGB to XYZ under D50.
_SRGB = np.array(
    [
        [0.436065674, 0.385147095, 0.143066406],
        [0.222488403, 0.716873169, 0.060607910],
        [0.013916016, 0.097076416, 0.714096069],
    ]
)
_FROM_XYZ = np.linalg.inv(_SRGB)
# Components of a picture -> colours that its profile may be for.
_SPACES = {1: (icc.GREY, icc.RGB), 3: (icc.RGB,), 4: (icc.INK,)}
_STEPS = 1 << 14  # of linear light, fine enough for 8 bits of the darkest sRGB
_BOUND = 1 << 28  # sums of three stay within INT32
_CHUNK = 1 << 15  # pixels at a time: keeps the temporary arrays in the cache
# Pictures are shrunk before their colours are changed where that shifts no brightness by more than this, of 255: linear
# light and ink reach 64. A profile that bends more would let a fine pattern show viewers what the detector does not
# see.
_MOST_SHIFT = 80
_BRIGHTNESS = np.array([0.299, 0.587, 0.114], np.float32)
# What a rough profile may cost: its pictures are changed at full size. About half a second of one core.
_MOST_ROUGH_PIXELS = {"curves": 16_000_000, "table": 1_250_000}


def encode(linear: np.ndarray) -> np.ndarray:
    """Linear light in 0..1 to sRGB in 0..1."""
    clipped = np.clip(np.nan_to_num(linear), 0, 1)
    return np.where(clipped <= 0.0031308, 12.92 * clipped, 1.055 * clipped ** (1 / 2.4) - 0.055)


_ENCODED = np.round(encode(np.arange(_STEPS) / (_STEPS - 1)) * 255).astype(np.uint8)


class Transform:
    """Changes the colours of pictures with one profile to sRGB.

    Attributes:
        channels: of the pixels that it takes: 3 for RGB and grey, 4 for ink, stored inverted.
        is_rough: pictures must not be shrunk before.
        most_pixels: of a picture with such a profile.
    """

    def __init__(self, profile: icc.Profile, components: int) -> None:
        self.channels = 4 if components == 4 else 3
        kind = "curves" if profile.table is None else "table"
        self.most_pixels = _MOST_ROUGH_PIXELS[kind]
        self._tables = _matrix_tables(profile) if profile.table is None else None
        self._grid = _Grid(profile, self.channels) if profile.table is not None else None
        self.is_rough = _largest_shift(self, components) > _MOST_SHIFT

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """UINT8 [h,w,channels] to sRGB UINT8 [h,w,3]."""
        flat = pixels.reshape(-1, self.channels)
        out = np.empty((len(flat), 3), np.uint8)
        for at in range(0, len(flat), _CHUNK):
            out[at : at + _CHUNK] = self._part(flat[at : at + _CHUNK])
        return out.reshape(*pixels.shape[:-1], 3)

    def _part(self, pixels: np.ndarray) -> np.ndarray:
        if self._tables is not None:
            red, green, blue = self._tables
            light = red.take(pixels[:, 0], axis=0)
            light += green.take(pixels[:, 1], axis=0)
            light += blue.take(pixels[:, 2], axis=0)
            return _ENCODED.take(light, mode="clip")
        assert self._grid is not None
        light = np.nan_to_num(self._grid(pixels)) * (_STEPS - 1)
        return _ENCODED[np.clip(np.rint(light), 0, _STEPS - 1).astype(np.int32)]


def transform(profile: bytes | None, components: int) -> Transform | None:
    """How the colours of a picture become sRGB; None where nothing is to be done, as with an sRGB profile.

    Args:
        profile: of the file, if it has one.
        components: of the picture: 1, 3 or 4. A profile of other colours is ignored, as one that cannot be used.

    Raises:
        DoubtfulProfile: the profile would change colours, but is broken so that viewers disagree.
    """
    if not profile or icc.space_of(profile) not in _SPACES.get(components, ()):
        return None
    make = next((remembered for most, remembered in _REMEMBERED if len(profile) <= most), _make)
    found = make(profile, components)
    if isinstance(found, str):
        raise DoubtfulProfile(found)
    return found


def of_space(profile: icc.Profile) -> Transform | None:
    """`transform` for RGB or grey colours of a space that is named by numbers."""
    found = Transform(profile, 3)
    return None if _changes_nothing(found) else found


def _make(data: bytes, components: int) -> Transform | str | None:
    """A transform, or why the profile is in doubt; None where nothing is to be done."""
    try:
        profile = icc.read(data)
        if profile is None:
            return None
        doubts = list(profile.doubts)
        if profile.code_points is not None:
            profile = colour_spaces.in_profile(profile)
        found = Transform(profile, components)
    except DoubtfulProfile as doubt:
        return str(doubt)
    if components != 4 and _changes_nothing(found):
        return None
    return ", ".join(dict.fromkeys(doubts)) if doubts else found


# Bytes of a profile -> how many such are kept; a transform takes up to five times as much. Strangers send another one
# in each file, so larger ones are read anew each time.
_REMEMBERED = tuple((most, functools.lru_cache(count)(_make)) for most, count in ((1 << 16, 64), (1 << 20, 4)))


def _matrix_tables(profile: icc.Profile) -> np.ndarray:
    """What each value of each channel adds to linear sRGB in `_STEPS`, INT32 [3,256,3]."""
    values = np.arange(256) / 255
    linear = np.stack([curve(values) for curve in profile.curves])
    matrix = profile.matrix
    assert matrix is not None
    has_one_formula = len(set(profile.curves)) == 1 and all(curve.table is None for curve in profile.curves)
    if not has_one_formula and _is_invertible(matrix):
        linear = _stored(linear)
    with np.errstate(all="ignore"):
        light = (_FROM_XYZ @ matrix).T[:, None, :] * linear[:, :, None] * (_STEPS - 1)
    return np.clip(np.nan_to_num(light), -_BOUND, _BOUND).round().astype(np.int32)


def _is_invertible(matrix: np.ndarray) -> bool:
    return bool(np.linalg.det(matrix) != 0)


def _stored(linear: np.ndarray) -> np.ndarray:
    """Chromium keeps what it cannot describe by one formula in 8 bits of the profile's own primaries."""
    return colour_spaces.SRGB_CURVE(np.round(encode(linear) * 255) / 255)


class _Grid:
    """A table, made ready for pixels of 8 bits."""

    def __init__(self, profile: icc.Profile, channels: int) -> None:
        table = profile.table
        assert table is not None
        self._table, self._is_lab = table, profile.is_lab
        values = np.arange(256, dtype=np.float32) / 255
        if channels == 4:  # ink is stored inverted
            values = 1 - values
        self._values = values
        self._inputs = len(table.points)
        # By channel and value: where in the grid the points below and above lie, and how far it is from the lower one.
        strides = np.cumprod((1, *table.points[:0:-1]))[::-1]
        self._corners, self._weights = [], []
        for axis, points in enumerate(table.points):
            stride = strides[axis]
            at = np.clip(table.inputs[axis](values), 0, 1) * (points - 1)
            low = at.astype(np.intp)
            rest = (at - low).astype(np.float32)
            self._corners.append((low * stride, np.minimum(low + 1, points - 1) * stride))
            self._weights.append((1 - rest, rest))
        self._grid = table.grid.astype(np.float32) / np.float32(255 if table.grid.dtype.itemsize == 1 else 65535)
        gamut = profile.matrix if profile.matrix is not None and _is_invertible(profile.matrix) else None
        self._gamut = gamut

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """UINT8 [n,channels] to linear sRGB [n,3]."""
        values = self._interpolated(pixels) if self._inputs else self._values[pixels[:, :3]]
        table = self._table
        if table.matrix is not None:
            values = _each(table.curves, values) @ table.matrix[:, :3].T + table.matrix[:, 3]
        values = _each(table.outputs, values)
        xyz = _lab_to_xyz(values) if self._is_lab else values
        if self._gamut is not None:
            xyz = _stored(xyz @ np.linalg.inv(self._gamut).T) @ self._gamut.T
        return xyz @ _FROM_XYZ.T

    def _interpolated(self, pixels: np.ndarray) -> np.ndarray:
        """Multilinear between the grid's points."""
        if pixels.shape[1] < self._inputs:  # the alpha channel's place, which is full
            pixels = np.column_stack([pixels, np.full(len(pixels), 255, np.uint8)])
        channels = [np.ascontiguousarray(pixels[:, axis]) for axis in range(self._inputs)]
        corners = [[side[channels[axis]] for side in self._corners[axis]] for axis in range(self._inputs)]
        weights = [[side[channels[axis]] for side in self._weights[axis]] for axis in range(self._inputs)]
        found = np.zeros((len(pixels), 3), np.float32)
        for corner in range(1 << self._inputs):
            sides = [corner >> axis & 1 for axis in range(self._inputs)]
            index, weight = corners[0][sides[0]], weights[0][sides[0]]
            for axis in range(1, self._inputs):
                index = index + corners[axis][sides[axis]]
                weight = weight * weights[axis][sides[axis]]
            found += weight[:, None] * self._grid.take(index, axis=0)
        return found


def _each(curves: tuple[icc_tags.Curve, ...], values: np.ndarray) -> np.ndarray:
    return np.stack([curve(values[:, i]) for i, curve in enumerate(curves)], axis=1)


def _lab_to_xyz(values: np.ndarray) -> np.ndarray:
    lightness, a, b = values[:, 0] * 100, values[:, 1] * 255 - 128, values[:, 2] * 255 - 128
    y = (lightness + 16) / 116
    f = np.stack([y + a / 500, y, y - b / 200], axis=1)
    cubed = f**3
    return np.where(cubed > 0.008856, cubed, (f - 16 / 116) / 7.787) * (0.9642, 1, 0.82491)


def _lines(channels: int) -> np.ndarray:
    """Ramps of 256 colours through the space of colours, UINT8 [lines,256,channels]: grey, and along each channel."""
    ramp = np.arange(256, dtype=np.uint8)
    lines = [np.repeat(ramp[:, None], channels, axis=1)]
    for channel in range(channels):
        for others in (0, 128, 255):
            line = np.full((256, channels), others, np.uint8)
            line[:, channel] = ramp
            lines.append(line)
    return np.stack(lines)


def _largest_shift(change: Transform, components: int) -> float:
    """The most that the brightness of two colours' mean depends on what comes first, the mean or `change`; of 255."""
    lines = _lines(change.channels)[: 1 if components == 1 else None]
    first, second = np.triu_indices(256, 1)
    first, second = first[(first + second) % 2 == 0], second[(first + second) % 2 == 0]
    brightness = change(lines) @ _BRIGHTNESS
    shifts = brightness[:, (first + second) // 2] - (brightness[:, first] + brightness[:, second]) / 2
    if components == 1:
        return float(np.abs(shifts).max())
    pairs = np.random.default_rng(1).integers(0, 256, (2, 4000, change.channels), np.uint8)
    means = (pairs.sum(0, dtype=np.uint16) // 2).astype(np.uint8)
    more = change(means[None])[0] @ _BRIGHTNESS - (change(pairs) @ _BRIGHTNESS).mean(0)
    return float(max(np.abs(shifts).max(), np.abs(more).max()))


def _changes_nothing(change: Transform) -> bool:
    """Whether no colour moves by more than one level."""
    dice = np.random.default_rng(2)
    colours = np.concatenate([_lines(3), dice.integers(0, 256, (16, 256, 3), np.uint8)])
    return bool(np.abs(change(colours).astype(np.int16) - colours).max() <= 1)
