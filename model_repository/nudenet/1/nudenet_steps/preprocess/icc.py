"""ICC colour profiles, read as Chromium reads them: which tags count, and which profiles are ignored.

Own code on purpose. Profiles come from strangers, and a library that prefers other tags of the same profile would show
the detector another picture than a viewer sees: Little CMS takes D2B0 before A2B0, does not know cicp, and applies
curves that browsers refuse. Here every read is checked by Python; nothing is allocated because a profile says so.

Chromium's releases agree on whole profiles, but not on broken ones: they had three readers (skcms in C++, moxcms and a
new one in Rust). What one of them applies and another ignores is in doubt, see `Profile.doubts`.

`nudenet_steps.preprocess` and `nudenet_client` hold the same file; a test keeps the two equal.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import icc_tags

RGB, GREY, INK = b"RGB ", b"GRAY", b"CMYK"  # colour spaces of a profile's input
_XYZ, _LAB = b"XYZ ", b"Lab "
_HEADER_BYTES, _TAG_BYTES = 132, 12
_VERSIONS = (2, 3, 4)  # major ones that all readers know
_KINDS = (b"scnr", b"mntr", b"prtr", b"link", b"spac", b"abst", b"nmcl")
_TABLES = (b"A2B0", b"A2B1", b"A2B2", b"B2A0", b"B2A1", b"B2A2")
_XYZ_TAGS = (b"wtpt", b"bkpt", b"lumi")
_TEXT_TAGS = (b"desc", b"cprt", b"dmdd", b"dmnd", b"vued", b"targ")
_MOST_BYTES, _MOST_NODES = 10_000_000, 3_000_000  # what all readers take
_MOST_TAGS = 1000  # honest ones have a few dozen
_D50 = (0.9642, 1.0, 0.8249)
_NEAR = 0.01


@dataclass(frozen=True)
class Profile:
    """What counts of a profile. `doubts`: why viewers may ignore it, or read other things in it."""

    space: bytes
    is_lab: bool  # what `table` answers in; otherwise XYZ
    curves: tuple[icc_tags.Curve, ...]  # three, or none
    matrix: np.ndarray | None  # linear RGB to XYZ, [3,3]
    table: icc_tags.Table | None
    code_points: tuple[int, int, int, int] | None = None  # cicp: primaries, transfer, matrix, full range
    doubts: tuple[str, ...] = ()


def join(parts: Sequence[tuple[int, int, bytes]]) -> bytes | None:
    """The profile of a JPEG file out of its segments; None where there is none, or not all of it.

    Args:
        parts: number, total and content of each segment. What comes after the first `total` of them does not count:
            some cameras write their profile twice.
    """
    whole = [part for part in parts if part[2]]
    total = whole[0][1] if whole else 0
    counting = sorted(whole[:total], key=lambda part: part[0])
    if [part[:2] for part in counting] != [(number, total) for number in range(1, total + 1)]:
        return None
    return b"".join(content for _, _, content in counting) or None


def space_of(data: bytes) -> bytes:
    """The colours that a profile is for: `RGB`, `GREY`, `INK` or others; empty where it is no profile."""
    return data[16:20] if data[36:40] == b"acsp" else b""


def read(data: bytes) -> Profile | None:
    """Read a profile; None where Chromium cannot use it.

    Args:
        data: the whole profile, from anybody.

    Raises:
        icc_tags.DoubtfulProfile: some viewers apply it, and what they make of it is not known.
    """
    try:
        return _read(data)
    except (icc_tags.Unusable, struct.error):
        return None


def _read(data: bytes) -> Profile:
    size, kind, space, pcs = struct.unpack_from(">I8x4s4s4s", data)
    (count,) = struct.unpack_from(">I", data, 128)
    least = _HEADER_BYTES + _TAG_BYTES * count
    if (
        space_of(data) not in (RGB, GREY, INK)
        or pcs not in (_XYZ, _LAB)
        or data[8] > max(_VERSIONS)
        or not count
        or least > len(data)
    ):
        raise icc_tags.Unusable
    white = icc_tags.read_fixed(data, 68, 3)
    doubts = [
        doubt
        for doubt, is_so in (
            ("its size is wrong", not least <= size <= len(data)),
            ("it is very large", len(data) >= _MOST_BYTES),
            ("its version is unknown", data[8] not in _VERSIONS),
            ("its class is unknown", kind not in _KINDS),
            ("its white is not D50", bool(np.any(np.abs(white - _D50) > _NEAR))),
        )
        if is_so
    ]
    tags = _Tags(memoryview(data), count, min(size, len(data)), doubts)
    table = _tables(tags, pcs == _XYZ, doubts)
    curves, matrix = _curves_and_matrix(tags, space, np.diag(white) if pcs == _XYZ else None, doubts)
    points = _code_points(tags, space, kind, doubts)
    if not all(_is_sound(tag) for tag in map(tags.get, (*_XYZ_TAGS, *_TEXT_TAGS)) if tag is not None):
        doubts.append("a tag beside its colours is broken")
    if table is not None and curves and matrix is not None and not all(map(icc_tags.is_plain, curves)):
        doubts.append("it has a table, and curves that cannot be inverted")
    if table is None and (not curves or matrix is None):
        if points is None:
            raise icc_tags.Unusable
        doubts.append("it has code points alone")
    return Profile(space, pcs == _LAB, curves, matrix, table, points, tuple(doubts))


class _Tags:
    """The tag table."""

    def __init__(self, data: memoryview, count: int, size: int, doubts: list[str]) -> None:
        if count > _MOST_TAGS:
            raise icc_tags.DoubtfulProfile(f"it has {count} tags")
        self._data = data
        self._entries: dict[bytes, tuple[int, int]] = {}  # name -> byte offset and bytes
        table = data[_HEADER_BYTES : _HEADER_BYTES + _TAG_BYTES * count]
        for name, offset, length in struct.iter_unpack(">4sII", table):
            if self._entries.setdefault(name, (offset, length)) != (offset, length):
                raise icc_tags.DoubtfulProfile("a tag is there twice")
            if length < 4 or offset + length > size:
                doubts.append("a tag lies outside of it")

    def get(self, name: bytes) -> memoryview | None:
        """The tag of this name."""
        if name not in self._entries:
            return None
        offset, length = self._entries[name]
        if offset + length > len(self._data):
            raise icc_tags.Unusable
        return self._data[offset : offset + length]

    def all(self, *names: bytes) -> list[memoryview]:
        """These tags, or none of them where one is missing."""
        found = [tag for tag in map(self.get, names) if tag is not None]
        return found if len(found) == len(names) else []


def _tables(tags: _Tags, is_xyz: bool, doubts: list[str]) -> icc_tags.Table | None:
    """The A2B table that counts. Broken ones spoil the profile, even those that do not count."""
    found: dict[bytes, icc_tags.Table] = {}
    for name in _TABLES:
        tag = tags.get(name)
        if tag is None:
            continue
        try:
            found[name] = icc_tags.read_table(tag, is_xyz, name.startswith(b"A2B"))
        except (icc_tags.Unusable, struct.error):
            if name in (b"A2B0", b"B2A0") or (name in (b"A2B1", b"B2A1") and name[:3] + b"0" not in found):
                raise
            doubts.append("a table is broken")
        else:
            if len(found[name].grid) > _MOST_NODES:
                doubts.append("a table is very large")
    if b"A2B2" in found and b"A2B0" not in found and b"A2B1" not in found:
        raise icc_tags.DoubtfulProfile("its only table is for saturation")
    return found.get(b"A2B0") or found.get(b"A2B1")


def _curves_and_matrix(
    tags: _Tags, space: bytes, white: np.ndarray | None, doubts: list[str]
) -> tuple[tuple[icc_tags.Curve, ...], np.ndarray | None]:
    grey = tags.all(b"kTRC")
    if space == GREY and grey:
        return (icc_tags.read_curve(grey[0], doubts)[0],) * 3, white
    curves = tuple(icc_tags.read_curve(tag, doubts)[0] for tag in tags.all(b"rTRC", b"gTRC", b"bTRC"))
    primaries = tags.all(b"rXYZ", b"gXYZ", b"bXYZ")
    if not primaries:
        return curves, None
    matrix = np.stack([icc_tags.read_xyz(tag) for tag in primaries], axis=1)
    if not matrix.any(axis=0).all():
        doubts.append("a primary is black")
    return curves, matrix


def _code_points(tags: _Tags, space: bytes, kind: bytes, doubts: list[str]) -> tuple[int, int, int, int] | None:
    tag = tags.get(b"cicp")
    if tag is None:
        return None
    if bytes(tag[:4]) != b"cicp" or len(tag) < 12 or space != RGB or kind not in (b"scnr", b"mntr"):
        doubts.append("its code points are out of place")
        return None
    return struct.unpack_from("4B", tag, 8)


def _is_sound(tag: memoryview) -> bool:
    """Whether a tag that says nothing of colours is whole: one of Chromium's readers refuses the profile otherwise."""
    kind = bytes(tag[:4])
    if kind == b"XYZ ":
        return len(tag) >= 20
    if kind == b"desc":
        return len(tag) >= 12 and 12 + struct.unpack_from(">I", tag, 8)[0] <= len(tag)
    if kind == b"mluc":
        return len(tag) >= 28 and 16 + 12 * struct.unpack_from(">I", tag, 8)[0] <= len(tag)
    return True
