"""Readers of colour profiles at their boundaries: what is whole, what is broken, what is in doubt."""

import struct

import numpy as np
import pytest

from data.vectors import coloured
from helpers import profiles
from nudenet_steps.preprocess import icc, icc_tags

IDENTITY = (1, 1, 0, 0, 0, 0, 0)
TAGS = profiles.matrix_tags(curves=profiles.curv([1, 0]))
WHOLE = profiles.build(TAGS)


def curve(data):
    doubts = []
    found, used = icc_tags.read_curve(memoryview(data), doubts)
    return found, used, doubts


def table(data, *, is_xyz=False, to_pcs=True):
    return icc_tags.read_table(memoryview(data), is_xyz, to_pcs)


def is_unusable(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except (icc_tags.Unusable, struct.error):
        return True
    return False


# --- curves ---


@pytest.mark.parametrize(
    ("data", "parameters", "used"),
    [
        (profiles.curv([]), IDENTITY, 12),
        (profiles.gamma(1), IDENTITY, 14),
        (profiles.gamma(2.5), (2.5, *IDENTITY[1:]), 14),
        (profiles.gamma(255), (255, *IDENTITY[1:]), 14),
        (profiles.para(0, 2), (2, *IDENTITY[1:]), 16),
        (profiles.para(1, 2, 0.5, -0.25), (2, 0.5, -0.25, 0, 0.5, 0, 0), 24),
        (profiles.para(1, 2, 1, 0), (2, 1, 0, 0, 0, 0, 0), 24),
        (profiles.para(2, 2, 0.5, -0.25, 0.125), (2, 0.5, -0.25, 0, 0.5, 0.125, 0.125), 28),
        (profiles.para(3, 2, 0.5, 0.25, 0.75, 0.125), (2, 0.5, 0.25, 0.75, 0.125, 0, 0), 32),
        (profiles.para(4, 2, 0.5, 0.25, 0.75, 0.125, 0.5, -0.5), (2, 0.5, 0.25, 0.75, 0.125, 0.5, -0.5), 40),
    ],
)
def test_curves_by_formula(data, parameters, used):
    found, length, _ = curve(data + b"more")
    assert found.table is None
    assert found.parameters == parameters
    assert length == used
    assert is_unusable(curve, data[: used - 1])


def test_curves_by_table():
    found, used, doubts = curve(profiles.curv([0, 1, 0.5]))
    assert found.table.tolist() == [0, 65535, 32768]
    assert (used, doubts) == (18, [])
    assert is_unusable(curve, profiles.curv([0, 1, 0.5])[:-1])
    assert is_unusable(curve, b"curv\0\0\0\0\xff\xff\xff\xff\0\0")
    assert is_unusable(curve, b"CURV" + profiles.curv([0, 1])[4:])
    assert is_unusable(curve, profiles.para(5, 1, 1, 1, 1, 1, 1, 1))
    assert is_unusable(curve, b"para\0\0\0\0\xff\xff\0\0" + bytes(40))
    assert is_unusable(curve, profiles.para(1, 2, 0, 1))
    assert curve(profiles.curv(np.zeros(40_000)))[2] == []
    assert curve(profiles.curv(np.zeros(40_001)))[2] == ["a curve is very large"]


@pytest.mark.parametrize("which", range(5))
def test_impossible_parameters_are_in_doubt(which):
    """g, a, c, d below zero, or a root of what is below zero at d."""
    good = [2, 0.5, 0.25, 0.5, 0.25]
    assert curve(profiles.para(3, *good))[2] == []
    assert curve(profiles.para(3, 0, 0, 0, 0, 0))[2] == []
    bad = list(good)
    bad[which] = -0.25 if which == 2 else -0.125
    found, _, doubts = curve(profiles.para(3, *bad))
    assert doubts == ["a curve has impossible parameters"]
    assert found.parameters == IDENTITY


def test_plain_curves_can_be_inverted():
    for data in (profiles.gamma(2.2), profiles.SRGB_PARA, profiles.gamma(1), profiles.curv([1, 0, 1])):
        assert icc_tags.is_plain(curve(data)[0])
    for data in (
        profiles.gamma(0.5),  # steep
        profiles.gamma(0),  # flat
        profiles.para(4, 2, 1, 0, 0, 0.5, 0, 0),  # jumps
        profiles.para(2, 1, 0.9, 0, 0.05),  # begins above 0
        profiles.para(1, 1, 0.9, 0),  # ends below 1
        profiles.para(4, 1, 0.8, 0.2, 0, 0.1, 0, 0),  # flat at first
    ):
        assert not icc_tags.is_plain(curve(data)[0])


# --- tables ---


def colours(values):
    return np.zeros((len(values), 3))


@pytest.mark.parametrize(("bits", "form", "slack"), [(8, "mft", 0), (16, "mft", 0), (8, "mAB", 4), (16, "mAB", 4)])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_tables_are_whole_or_not(bits, form, slack, channels):
    whole = profiles.lut(colours, channels=channels, points=2, bits=bits, form=form)
    whole = whole[: len(whole) - slack]
    found = table(whole)
    assert found.points == (2,) * channels
    assert found.grid.shape == (2**channels, 3)
    assert len(found.inputs) == channels
    assert is_unusable(table, whole[:-1])
    assert is_unusable(table, whole, to_pcs=False) != (form == "mft" and channels == 3)
    assert is_unusable(table, b"xxxx" + whole[4:])
    for at, value in ((8, 5), (9, 2), (9, 4)):
        assert is_unusable(table, whole[:at] + bytes([value]) + whole[at + 1 :] + bytes(50_000))


def test_a_grid_has_two_points_at_least():
    whole = profiles.lut(colours, points=2)
    assert is_unusable(table, whole[:10] + b"\1" + whole[11:])
    assert is_unusable(table, whole[:8] + b"\0" + whole[9:])
    large = profiles.lut(colours, points=200, channels=1, bits=8)
    assert table(large).points == (200,)
    with_parts = profiles.lut_parts(
        [profiles.curv([])] * 3, (), (), np.zeros((2, 1, 2, 3), np.uint8), [profiles.curv([])] * 3
    )
    assert is_unusable(table, with_parts)
    good = profiles.lut_parts(
        [profiles.curv([])] * 3, (), (), np.zeros((2, 2, 2, 3), np.uint8), [profiles.curv([])] * 3
    )
    width = good.index(b"\2\2\2\0\0") + 16
    for value in (0, 3, 255):
        assert is_unusable(table, good[:width] + bytes([value]) + good[width + 1 :] + bytes(9000))


@pytest.mark.parametrize(
    ("before", "behind", "is_good"),
    [(2, 2, True), (4096, 4096, True), (1, 2, False), (2, 1, False), (4097, 2, False), (2, 4097, False)],
)
def test_tables_of_16_bits_say_how_many_entries_their_curves_have(before, behind, is_good):
    head = b"mft2\0\0\0\0" + bytes([1, 3, 2, 0]) + bytes(36) + struct.pack(">2H", before, behind)
    first, grid, last = [[number] * count for number, count in ((1, before), (2, 6), (3, 3 * behind))]
    data = head + np.array(first + grid + last, ">u2").tobytes()
    assert is_unusable(table, data) != is_good
    if is_good:
        found = table(data)
        assert [one.table.tolist() for one in found.inputs] == [[1] * before]
        assert [one.table.tolist() for one in found.outputs] == [[3] * behind] * 3
        assert found.grid.tolist() == [[2, 2, 2]] * 2


def test_tables_the_other_way_are_checked():
    def backwards(data):
        return b"mBA " + data[4:]

    curves = [profiles.curv([])] * 3
    grid = np.zeros((2, 2, 2, 3), np.uint8)
    plain = backwards(profiles.lut_parts(curves, (), (), grid, curves))
    assert table(plain, to_pcs=False).points == (2, 2, 2)
    assert is_unusable(table, plain)
    to_ink = bytearray(
        backwards(profiles.lut_parts(curves, (), (), np.zeros((2, 2, 2, 4), np.uint8), [profiles.para(0, 1)] * 4))
    )
    to_ink[9] = 4
    assert len(table(bytes(to_ink), to_pcs=False).inputs) == 4
    assert is_unusable(table, bytes(to_ink[:-10]), to_pcs=False)
    from_ink = bytearray(plain)
    from_ink[8] = 4
    assert is_unusable(table, bytes(from_ink), to_pcs=False)
    lut = profiles.lut(colours, points=2, bits=8)
    assert table(lut, to_pcs=False).points == (2, 2, 2)


def test_parts_that_belong_together():
    curves, matrix = [profiles.para(0, 1)] * 3, [0] * 12
    grid = np.zeros((2, 2, 2, 3), np.uint8)
    table(profiles.lut_parts(curves))
    table(profiles.lut_parts(curves, matrix, curves))
    for parts in (
        ([], matrix, curves),
        (curves, matrix, ()),
        (curves, (), curves),
        (curves, (), (), grid),
    ):
        with pytest.raises(icc_tags.DoubtfulProfile, match="parts of a table are missing"):
            table(profiles.lut_parts(*parts))
    four = bytearray(profiles.lut_parts(curves))
    four[8] = 4
    with pytest.raises(icc_tags.DoubtfulProfile, match="parts of a table are missing"):
        table(bytes(four))
    for mixed in (
        [profiles.gamma(2)] * 3,
        [profiles.curv([])] * 2 + [profiles.curv([0, 1])],
        [*curves[:2], profiles.curv([])],
    ):
        with pytest.raises(icc_tags.DoubtfulProfile, match="of several kinds"):
            table(profiles.lut_parts(mixed))
    for broken in (profiles.curv(np.zeros(40_001)), profiles.para(3, 1, -1, 1, 0, 0)):
        with pytest.raises(icc_tags.DoubtfulProfile, match="a curve"):
            table(profiles.lut_parts([broken] * 3))


# --- whole profiles ---


def doubts(data):
    return icc.read(data).doubts


def test_a_whole_profile_has_no_doubts():
    found = icc.read(WHOLE)
    assert found.doubts == ()
    assert (found.space, found.is_lab, found.table, found.code_points) == (icc.RGB, False, None, None)
    assert np.abs(found.matrix - np.array(profiles.SRGB).T).max() < 1e-4
    assert icc.read(coloured.ink_profile()).is_lab
    grey = icc.read(profiles.grey(profiles.curv([])))
    assert np.allclose(np.diag(grey.matrix), (0.9642, 1, 0.8249), atol=1e-4)
    assert icc.read(profiles.grey(profiles.curv([1, 0]), pcs=b"Lab ")) is None


@pytest.mark.parametrize("size", [0, 20, 40, 131, 132, 140])
def test_profiles_that_end_early_are_none(size):
    assert icc.read(WHOLE[:size]) is None


def test_sizes_and_numbers_of_the_header():
    def with_size(size):
        return struct.pack(">I", size) + WHOLE[4:]

    assert doubts(with_size(len(WHOLE) + 1))[0] == "its size is wrong"
    assert "its size is wrong" in doubts(with_size(132 + 12 * 6 - 1))
    assert doubts(with_size(132 + 12 * 6)) == ("a tag lies outside of it",) * 6
    assert doubts(WHOLE + b"more") == ()
    for version, known in ((0, False), (1, False), (2, True), (3, True), (4, True)):
        assert bool(doubts(profiles.build(TAGS, version=version))) != known
    assert icc.read(profiles.build(TAGS, version=5)) is None
    for kind in (b"scnr", b"mntr", b"prtr", b"link", b"spac", b"abst", b"nmcl"):
        assert doubts(profiles.build(TAGS, kind=kind)) == ()
    assert doubts(profiles.build(TAGS, kind=b"mntR")) == ("its class is unknown",)
    for white, is_good in (
        ((0.9742, 1, 0.8249), True),
        ((0.9752, 1, 0.8249), False),
        ((0.9642, 0.985, 0.8249), False),
        ((0.9642, 1, 0.84), False),
    ):
        assert (doubts(profiles.build(TAGS, white=white)) == ()) == is_good
    empty = len(profiles.build({**TAGS, b"junk": b""}))
    assert doubts(profiles.build({**TAGS, b"junk": bytes(9_999_996 - empty)})) == ()
    assert doubts(profiles.build({**TAGS, b"junk": bytes(10_000_000 - empty)})) == ("it is very large",)


def test_tags_stand_once_and_inside():
    many = {b"%04d" % i: b"text" for i in range(1000 - len(TAGS))}
    assert doubts(profiles.build({**TAGS, **many})) == ()
    with pytest.raises(icc_tags.DoubtfulProfile, match="1001 tags"):
        icc.read(profiles.build({**TAGS, **many, b"more": b"text"}))
    assert doubts(profiles.build({**TAGS, b"text": b"abc"})) == ("a tag lies outside of it",)
    far = profiles.build({**TAGS, b"text": b"abcd"})
    entry = far.index(b"text", 132)
    assert doubts(far[: entry + 4] + b"\xff\xff\xff\0" + far[entry + 8 :]) == ("a tag lies outside of it",)
    assert icc.read(WHOLE[:128] + b"\xff\xff\xff\xff" + WHOLE[132:]) is None
    same = {**TAGS, b"text": b"abcd"}
    data = profiles.build({**same, b"text twice": b"abcd"})
    with pytest.raises(icc_tags.DoubtfulProfile, match="twice"):
        icc.read(data)
    entry = data.index(b"text", 132)
    twin = data[: entry + 12] + data[entry : entry + 12] + data[entry + 24 :]
    assert doubts(twin) == ()
    cut = WHOLE.index(b"rTRC", 132)
    assert icc.read(WHOLE[: cut + 4] + struct.pack(">II", len(WHOLE) - 8, 12) + WHOLE[cut + 12 :]) is None


@pytest.mark.parametrize("missing", sorted(TAGS))
def test_every_tag_of_curves_and_primaries_is_needed(missing):
    assert icc.read(profiles.build({name: tag for name, tag in TAGS.items() if name != missing})) is None


def test_which_table_counts_and_which_spoils():
    good, broken = profiles.lut(profiles.lab, points=2), b"mft2" + bytes(60)
    other = profiles.lut(profiles.lab, points=3)

    def read(**tables):
        return icc.read(profiles.build({name.encode(): tag for name, tag in tables.items()} | TAGS, pcs=b"Lab "))

    assert read(A2B0=good, A2B1=other).table.points == (2, 2, 2)
    assert read(A2B1=other).table.points == (3, 3, 3)
    assert read(A2B0=broken) is None
    assert read(A2B1=broken) is None
    assert read(B2A0=broken) is None
    assert read(B2A1=broken) is None
    assert read(A2B0=good, A2B1=broken).doubts == ("a table is broken",)
    assert read(A2B0=good, A2B2=broken).doubts == ("a table is broken",)
    assert read(B2A0=good, B2A1=broken).doubts == ("a table is broken",)
    assert read(B2A2=broken).doubts == ("a table is broken",)
    assert read(A2B0=good, A2B1=other, A2B2=other, B2A0=good, B2A1=good, B2A2=good).doubts == ()
    with pytest.raises(icc_tags.DoubtfulProfile, match="saturation"):
        read(A2B2=good)
    assert read(A2B1=good, A2B2=good).doubts == ()
    assert read(A2B0=good, A2B2=good).doubts == ()


def test_a_table_may_be_large_but_not_very():
    for points, is_good in ((41, True), (42, False)):
        tag = profiles.lut(lambda values: np.zeros((len(values), 3)), channels=4, points=points, bits=8)
        profile = icc.read(profiles.build({b"A2B0": tag}, space=b"CMYK", pcs=b"Lab "))
        assert ("a table is very large" in profile.doubts) != is_good


def test_tags_beside_the_colours_are_whole():
    good = {
        b"wtpt": profiles.xyz((1, 1, 1)),
        b"desc": b"desc\0\0\0\0\0\0\0\4abcd",
        b"cprt": b"mluc\0\0\0\0\0\0\0\1\0\0\0\x0cenUS\0\0\0\0\0\0\0\x1c",
        b"dmnd": b"text",
    }
    assert doubts(profiles.build({**TAGS, **good})) == ()
    assert doubts(profiles.build({**TAGS, b"desc": b"desc" + bytes(8)})) == ()
    endless = b"\xff\xff\xff\xff"
    broken = (
        good[b"wtpt"][:-1],
        good[b"desc"][:-1],
        b"desc" + bytes(7),
        b"desc\0\0\0\0" + endless + b"abcd",
        good[b"cprt"][:-1],
        good[b"cprt"][:11] + b"\2" + good[b"cprt"][12:],
        good[b"cprt"][:8] + endless + good[b"cprt"][12:],
    )
    for name in (b"wtpt", b"bkpt", b"lumi", b"desc", b"cprt", b"dmdd", b"dmnd", b"vued", b"targ"):
        for tag in broken:
            assert doubts(profiles.build({**TAGS, name: tag})) == ("a tag beside its colours is broken",)


def test_code_points_stand_where_they_may():
    points = profiles.cicp(1, 13)
    for kind in (b"scnr", b"mntr"):
        assert icc.read(profiles.build({**TAGS, b"cicp": points}, kind=kind)).code_points == (1, 13, 0, 1)
    assert icc.read(profiles.build({**TAGS, b"cicp": profiles.cicp(200, 201, 202, 203)})).code_points == (
        200,
        201,
        202,
        203,
    )
    assert doubts(profiles.build({b"cicp": points})) == ("it has code points alone",)
    for data in (
        profiles.build({**TAGS, b"cicp": points}, kind=b"prtr"),
        profiles.build({**TAGS, b"cicp": points[:-1]}),
        profiles.build({**TAGS, b"cicp": b"CICP" + points[4:]}),
        profiles.build({b"kTRC": profiles.curv([1, 0]), b"cicp": points}, space=b"GRAY"),
    ):
        assert doubts(data) == ("its code points are out of place",)
        assert icc.read(data).code_points is None


def test_a_table_beside_curves_that_cannot_be_inverted_is_in_doubt():
    lut = {b"A2B0": profiles.lut(profiles.lab, points=2)}
    assert doubts(profiles.build(lut | profiles.matrix_tags(), pcs=b"Lab ")) == ()
    steep = profiles.matrix_tags(curves=profiles.gamma(0.5))
    assert doubts(profiles.build(lut | steep, pcs=b"Lab ")) == ("it has a table, and curves that cannot be inverted",)
    only_curves = {name: tag for name, tag in steep.items() if name.endswith(b"TRC")}
    assert doubts(profiles.build(lut | only_curves, pcs=b"Lab ")) == ()


def test_black_primaries_are_in_doubt():
    black = (*profiles.SRGB[:2], (0, 0, 0))
    assert doubts(profiles.matrix(black)) == ("a primary is black",)
    assert doubts(profiles.matrix(((0, 1, 0), (0, 0, 1), (1, 0, 0)))) == ()


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        ([(1, 1, b"a")], b"a"),
        ([(2, 2, b"b"), (1, 2, b"a")], b"ab"),
        ([(2, 2, b"b"), (1, 2, b"a"), (7, 9, b"c")], b"ab"),
        ([(1, 1, b""), (1, 1, b"a")], b"a"),
        ([(1, 2, b"a"), (1, 2, b"a"), (2, 2, b"b")], None),
        ([(1, 2, b"a")], None),
        ([(0, 0, b"a")], None),
        ([(1, 0, b"a")], None),
        ([(2, 2, b"a"), (3, 2, b"b")], None),
        ([], None),
    ],
)
def test_parts_of_a_profile_are_joined(parts, whole):
    assert icc.join(parts) == whole
