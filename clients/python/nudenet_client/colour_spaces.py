"""Colour spaces named by numbers instead of a profile: H.273's code points, and chromaticities with an exponent.

`nudenet_steps.preprocess` and `nudenet_client` hold the same file; a test keeps the two equal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import icc
from .icc_tags import Curve, DoubtfulProfile, power

_D65, _C, _EQUAL = (0.3127, 0.3290), (0.310, 0.316), (1 / 3, 1 / 3)
# Code point of the primaries -> x and y of red, green, blue and white.
_PRIMARIES = {
    1: (0.640, 0.330, 0.300, 0.600, 0.150, 0.060, *_D65),
    4: (0.670, 0.330, 0.210, 0.710, 0.140, 0.080, *_C),
    5: (0.640, 0.330, 0.290, 0.600, 0.150, 0.060, *_D65),
    6: (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, *_D65),
    7: (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, *_D65),
    8: (0.681, 0.319, 0.243, 0.692, 0.145, 0.049, *_C),
    9: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, *_D65),
    10: (1.0, 0.0, 0.0, 1.0, 0.0, 0.0, *_EQUAL),
    11: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.314, 0.351),
    12: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, *_D65),
    22: (0.630, 0.340, 0.295, 0.605, 0.155, 0.077, *_D65),
}
SRGB_CURVE = Curve((2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045, 0.0, 0.0))
_LIKE_BT709 = (1, 6, 11, 14, 15)
# Code point of the transfer -> curve.
_CURVES = {
    13: SRGB_CURVE,
    **dict.fromkeys(_LIKE_BT709, power(2.4)),  # what screens do of it, BT.1886
    4: power(2.2),
    5: power(2.8),
    7: Curve((1 / 0.45, 1 / 1.1115, 0.1115 / 1.1115, 1 / 4.0, 0.0912, 0.0, 0.0)),
    8: Curve(),
    17: Curve((2.6, (52.37 / 48) ** (1 / 2.6), 0.0, 0.0, 0.0, 0.0, 0.0)),
}
_HIGH_RANGE = {16: "PQ", 18: "HLG"}
# How Bradford's method sees XYZ, and the white that profiles are made for.
_CONES = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D50 = np.array([0.9642, 1.0, 0.8249])


def in_profile(profile: icc.Profile) -> icc.Profile:
    """What a profile with code points stands for: Chromium prefers them to all else in it, where it knows them.

    Raises:
        DoubtfulProfile: they say colours brighter than white, or are unknown to some.
    """
    assert profile.code_points is not None
    primaries, transfer, matrix, is_full = profile.code_points
    if matrix == 0 and is_full == 1:
        # Inside of a profile, but not elsewhere, these are shown as sRGB.
        found = by_code_points(primaries, 13 if transfer in (1, 6, 11) else transfer)
        if found is not None:
            return found
    if profile.table is None and (not profile.curves or profile.matrix is None):
        raise DoubtfulProfile("its code points are unknown")
    return profile


def by_code_points(primaries: int, transfer: int) -> icc.Profile | None:
    """The profile of H.273's code points; None where one of them is none that is known.

    Raises:
        DoubtfulProfile: colours brighter than white, which each viewer darkens in its own way.
    """
    if primaries not in _PRIMARIES or transfer not in (*_CURVES, *_HIGH_RANGE):
        return None
    if transfer in _HIGH_RANGE:
        raise DoubtfulProfile(f"{_HIGH_RANGE[transfer]}: colours brighter than white")
    return _profile(_PRIMARIES[primaries], _CURVES[transfer])


def by_chromaticities(xy: Sequence[float], exponent: float) -> icc.Profile | None:
    """The profile of primaries and an exponent.

    Args:
        xy: of red, green, blue and white, eight numbers.
        exponent: what stored values are raised to for linear light.

    Returns:
        None where no colours follow from that.
    """
    return _profile(xy, power(exponent)) if exponent > 0 else None


def _profile(xy: Sequence[float], curve: Curve) -> icc.Profile | None:
    points = np.array(xy, np.float64).reshape(4, 2)
    with np.errstate(all="ignore"):
        xyz = np.stack([points[:, 0] / points[:, 1], np.ones(4), (1 - points.sum(1)) / points[:, 1]])
        if not points[:3, 1].all():  # imaginary primaries without luminance: their XYZ as it stands
            xyz[:, :3] = np.stack([points[:3, 0], points[:3, 1], 1 - points[:3].sum(1)])
    primaries, white = xyz[:, :3], xyz[:, 3]
    if not np.isfinite(xyz).all() or np.linalg.det(primaries) == 0:
        return None
    cones, target = _CONES @ white, _CONES @ _D50
    if not cones.all():
        return None
    adapted = np.linalg.inv(_CONES) @ np.diag(target / cones) @ _CONES
    matrix = adapted @ primaries @ np.diag(np.linalg.solve(primaries, white))
    return icc.Profile(icc.RGB, False, (curve,) * 3, matrix, None)
