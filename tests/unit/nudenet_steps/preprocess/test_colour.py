"""Colour profiles: what they do to pixels, what is ignored, and what strangers may do with them."""

import random
import struct

import numpy as np
import pytest
from PIL import Image

from data.vectors import coloured
from helpers import profiles
from helpers.hostile import encode, photo
from nudenet_steps.preprocess import colour, colour_spaces, icc, icc_tags, jpeg

BACKWARDS = profiles.curv([1, 0])
GREYS = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)[None]
NEGATIVE = coloured.negative()


def srgb(linear):
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255


def changed(profile, pixels=GREYS, components=3):
    found = colour.transform(profile, components)
    return pixels if found is None else found(pixels)


# --- what is done to colours ---


@pytest.mark.parametrize("curve", [profiles.SRGB_PARA, profiles.curv((np.arange(1024) / 1023) ** 2.2)])
def test_srgb_costs_nothing(curve):
    table = np.arange(1024) / 1023
    table = np.where(table <= 0.04045, table / 12.92, ((table + 0.055) / 1.055) ** 2.4)
    assert colour.transform(profiles.matrix(), 3) is None
    assert colour.transform(profiles.matrix(curves=profiles.curv(table), version=2), 3) is None
    assert colour.transform(None, 3) is None
    assert colour.transform(b"", 3) is None


def test_one_level_is_nothing_and_two_are_not():
    def brighter(by):
        return profiles.matrix(curves=profiles.para(4, *profiles.SRGB_CURVE[:3], 1 / 12.92, 0.04045, by, by))

    assert colour.transform(brighter(0.0002), 3) is None
    assert colour.transform(brighter(0.0008), 3) is not None


def test_curves_are_followed_to_half_a_level():
    values = np.arange(256) / 255
    for exponent in (1, 1.8, 2.5):
        shown = changed(profiles.matrix(curves=profiles.gamma(exponent)))[0]
        assert np.abs(shown - srgb(values**exponent)[:, None]).max() <= 1.1
    shown = changed(profiles.matrix(curves=BACKWARDS))[0]
    assert np.abs(shown - srgb(1 - values)[:, None]).max() <= 1.1
    kinked = profiles.para(4, 2, 0.5, 0.2, 0.5, 0.4, 0.1, 0.05)
    shown = changed(profiles.matrix(curves=kinked))[0]
    expected = np.where(values < 0.4, 0.5 * values + 0.05, (0.5 * values + 0.2) ** 2 + 0.1)
    assert np.abs(shown - srgb(expected)[:, None]).max() <= 1.1


def test_display_p3_is_what_it_is():
    """CSS Color 4: color(display-p3 0 1 0) lies outside of sRGB, color(display-p3 0.5 0.4 0.3) inside."""
    pixels = np.array([[[0, 255, 0], [128, 102, 77], [255, 255, 255]]], np.uint8)
    shown = changed(profiles.matrix(profiles.DISPLAY_P3), pixels)[0].tolist()
    assert shown[0] == [0, 255, 0]
    assert np.abs(np.array(shown[1]) - (133, 101, 74)).max() <= 1
    assert shown[2] == [255, 255, 255]


def test_tables_are_interpolated_between_their_points():
    pixels = np.random.default_rng(1).integers(0, 256, (40, 50, 3), np.uint8)
    for form, bits in (("mft", 8), ("mft", 16), ("mAB", 8), ("mAB", 16)):
        tag = profiles.lut(lambda values: profiles.lab(values[:, ::-1]), points=33, form=form, bits=bits)
        shown = changed(profiles.build({b"A2B0": tag}, pcs=b"Lab "), pixels)
        assert np.abs(shown.astype(int) - pixels[..., ::-1]).mean() < 1.5, (form, bits)


def test_dark_lab_is_linear():
    """CIE Lab below a lightness of 8, black included."""
    tag = profiles.lut(lambda values: np.column_stack([values[:, 0] * 0.08, *[np.full(len(values), 128 / 255)] * 2]))
    shown = changed(profiles.build({b"A2B0": tag}, pcs=b"Lab "))[0, :, 1]
    lightness = np.arange(256) / 255 * 8
    assert np.abs(shown - srgb(lightness / 903.3)).max() <= 1


def test_a_tables_curves_and_matrix_come_in_their_order():
    """mAB: A curves, grid, M curves, matrix, B curves."""
    swap = (0, 0.5, 0, 0.5, 0, 0, 0, 0, 0.5, 0.1, 0, 0)
    curves = [profiles.para(0, 2), profiles.para(0, 1), profiles.para(0, 1)]
    tag = profiles.lut_parts([profiles.curv([0, 0.5])] * 3, swap, curves)
    table = icc.read(profiles.build({b"A2B0": tag}, pcs=b"Lab ")).table
    values = np.array([[0.8, 0.4, 0.2]])
    after_m = np.array([0.64, 0.4, 0.2])
    after_matrix = np.array([0.5 * after_m[1] + 0.1, 0.5 * after_m[0], 0.5 * after_m[2]])
    staged = np.stack([curve(values[:, i]) for i, curve in enumerate(table.curves)], 1)
    assert np.allclose(staged, after_m, atol=1e-4)
    assert np.allclose(staged @ table.matrix[:, :3].T + table.matrix[:, 3], after_matrix, atol=1e-4)
    assert np.allclose([curve(np.array([1.0]))[0] for curve in table.outputs], 0.5, atol=1e-4)
    # Where it answers in XYZ, the matrix counts in its encoding, which reaches just below 2.
    in_xyz = icc.read(profiles.build({b"A2B0": tag})).table
    assert np.allclose(in_xyz.matrix, table.matrix * 65535 / 32768)


def test_ink_is_stored_inverted():
    tag = profiles.lut(lambda values: profiles.lab(profiles.ink(values)), channels=4, points=9)
    profile = profiles.build({b"A2B0": tag}, space=b"CMYK", pcs=b"Lab ")
    pixels = np.array([[[255, 255, 255, 255], [0, 255, 255, 255], [255, 255, 255, 0]]], np.uint8)
    shown = changed(profile, pixels, components=4)[0]
    assert np.abs(shown.astype(int) - [[255, 255, 255], [0, 255, 255], [0, 0, 0]]).max() <= 3
    assert colour.transform(profile, 3) is None
    assert colour.transform(NEGATIVE, 4) is None
    assert colour.transform(NEGATIVE, 2) is None


def test_pictures_of_any_shape_and_in_parts():
    change = colour.transform(NEGATIVE, 3)
    pixels = np.random.default_rng(1).integers(0, 256, (300, 301, 3), np.uint8)
    shown = change(pixels)
    assert shown.shape == pixels.shape
    assert shown.dtype == np.uint8
    assert np.array_equal(shown[7:9, 250:], change(np.ascontiguousarray(pixels[7:9, 250:])))
    assert np.array_equal(change(pixels.transpose(1, 0, 2)), shown.transpose(1, 0, 2))


# --- what is shrunk first ---


@pytest.mark.parametrize(
    ("profile", "is_rough"),
    [
        (profiles.matrix(profiles.DISPLAY_P3), False),
        (profiles.matrix(profiles.ADOBE_RGB, profiles.gamma(2.2)), False),
        (profiles.matrix(profiles.PROPHOTO, profiles.gamma(1.8)), False),
        (profiles.matrix(curves=profiles.gamma(1)), False),
        (NEGATIVE, False),
        (profiles.matrix(curves=profiles.curv([1, 0, 1])), True),
        (profiles.matrix(curves=profiles.curv([0, 1] * 128)), True),
        (profiles.matrix(curves=profiles.curv([0.2] * 128 + [1] + [0.2] * 127)), True),
    ],
)
def test_rough_profiles_are_told_from_smooth_ones(profile, is_rough):
    assert colour.transform(profile, 3).is_rough == is_rough


def test_a_rough_table_is_found_too():
    def lattice(values):
        return profiles.lab(((values * 16).round() % 2).prod(1, keepdims=True).repeat(3, 1))

    profile = profiles.build({b"A2B0": profiles.lut(lattice, points=17)}, pcs=b"Lab ")
    assert colour.transform(profile, 3).is_rough


def test_a_fine_pattern_cannot_hide_a_picture():
    """Black and white pixels in turns, both shown white: the mean, which is grey, would be shown black."""
    board = np.indices((320, 640)).sum(0) % 2 * 255
    board[:, 320:] = 128
    data = encode(Image.fromarray(board.astype(np.uint8)), quality=100)
    shows = coloured.with_profile(data, profiles.matrix(curves=profiles.curv([1, 0, 1])))
    header = jpeg.read_header(shows)
    seen = jpeg.decode(shows, header, 160, 80)
    assert seen[:, : seen.shape[1] // 2 - 8].mean() > 230
    assert seen[:, seen.shape[1] // 2 + 8 :].mean() < 25


def test_large_pictures_with_a_rough_profile_are_refused():
    data = encode(photo(64, 64), quality=50)
    rough = coloured.with_profile(data, profiles.matrix(curves=profiles.curv([1, 0, 1])))
    assert jpeg.read_header(rough).colours.most_pixels == 16_000_000
    limits = jpeg.Limits()
    jpeg.check_limits(jpeg.read_header(rough), limits)

    def sized(data, side):
        at = data.index(b"\xff\xc0")
        return data[: at + 5] + struct.pack(">HH", side, side) + data[at + 9 :]

    jpeg.check_limits(jpeg.read_header(sized(rough, 4000)), limits)
    with pytest.raises(jpeg.JpegError, match="convert it to sRGB") as refused:
        jpeg.check_limits(jpeg.read_header(sized(rough, 4001)), limits)
    assert refused.value.reason == "unsupported"
    jpeg.check_limits(jpeg.read_header(sized(coloured.with_profile(data, NEGATIVE), 4001)), limits)


# --- strangers ---


def test_what_viewers_disagree_over_is_refused_only_where_it_changes_colours():
    for change in (
        lambda data: struct.pack(">I", len(data) + 1) + data[4:],
        lambda data: data[:68] + profiles.fixed(0.9505, 1, 1.089) + data[80:],
    ):
        assert colour.transform(change(profiles.matrix()), 3) is None
        with pytest.raises(colour.DoubtfulProfile):
            colour.transform(change(NEGATIVE), 3)
    assert colour.transform(NEGATIVE + bytes(9), 3) is not None


def test_few_profiles_are_remembered_and_large_ones_not_at_all():
    def of_size(size, number=0):
        tags = {**profiles.matrix_tags(curves=BACKWARDS), b"junk": number.to_bytes(4, "big")}
        return profiles.build({**tags, b"junk": tags[b"junk"] + bytes(size - len(profiles.build(tags)))})

    def kept():
        return [remembered.cache_info().currsize for _, remembered in colour._REMEMBERED]

    for size, expected in ((1 << 16, [1, 0]), ((1 << 16) + 4, [1, 1]), (1 << 20, [1, 2]), ((1 << 20) + 4, [1, 2])):
        profile = of_size(size)
        assert len(profile) == size
        assert colour.transform(profile, 3) is not None
        assert kept() == expected
    for number in range(70):
        colour.transform(of_size(1000, number), 3)
        colour.transform(of_size((1 << 16) + 4, number), 3)
    assert kept() == [64, 4]


@pytest.mark.parametrize("count", [1001, 1_000_000])
def test_profiles_of_very_many_tags_are_not_read(count):
    data = NEGATIVE[:128] + struct.pack(">I", count) + struct.pack(">4sII", b"text", 132, 4) * count
    with pytest.raises(colour.DoubtfulProfile, match=f"{count} tags"):
        icc.read(data)


def mutated(dice, data):
    data = bytearray(data)
    for _ in range(dice.randrange(1, 5)):
        at = dice.choice([dice.randrange(132), dice.randrange(len(data)), dice.randrange(len(data))])
        kind = dice.randrange(4)
        if kind == 0:
            data[at] = dice.choice([0, 1, 2, 127, 128, 255, dice.randrange(256)])
        elif kind == 1:
            data[at : at + 4] = dice.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0"])
        elif kind == 2:
            del data[at : at + dice.randrange(1, 9)]
        else:
            other = dice.randrange(len(data))
            data[at : at + 12] = data[other : other + 12]
        if len(data) < 200:
            break
    return bytes(data)


def test_thousands_of_broken_profiles_raise_nothing_else():
    bases = [
        (row, components)
        for row, components in (
            (profiles.matrix(profiles.DISPLAY_P3), 3),
            (NEGATIVE, 3),
            (profiles.grey(profiles.curv(np.linspace(1, 0, 20))), 1),
            (profiles.build({b"A2B0": profiles.lut(profiles.lab, points=3)}, pcs=b"Lab "), 3),
            (profiles.build({b"A2B0": profiles.lut(profiles.lab, points=3, form="mAB")}, pcs=b"Lab "), 3),
            (profiles.build({**profiles.matrix_tags(curves=BACKWARDS), b"cicp": profiles.cicp(9, 1)}), 3),
            (
                profiles.build(
                    {b"A2B0": profiles.lut(lambda v: profiles.lab(profiles.ink(v)), channels=4, points=2)},
                    space=b"CMYK",
                    pcs=b"Lab ",
                ),
                4,
            ),
        )
    ]
    applied = ignored = doubtful = 0
    for seed in range(3000):
        dice = random.Random(seed)
        data, components = dice.choice(bases)
        try:
            profile = icc.read(mutated(dice, data))
        except colour.DoubtfulProfile:
            doubtful += 1
            continue
        if profile is None:
            ignored += 1
        elif profile.doubts:
            doubtful += 1
        else:
            applied += 1
            # Most of the work is in judging the profile, which the seeds below do.
            if seed % 20 == 0:
                try:
                    change = colour.transform(mutated(random.Random(seed), data), components)
                except colour.DoubtfulProfile:
                    continue
                if change is not None:
                    assert change(np.zeros((2, 3, change.channels), np.uint8)).shape == (2, 3, 3)
    assert min(applied, ignored, doubtful) > 100


# --- named spaces ---


def test_spaces_by_numbers():
    p3, bt709 = colour_spaces.by_code_points(12, 13), colour_spaces.by_code_points(1, 13)
    assert np.abs(p3.matrix - np.array(profiles.DISPLAY_P3).T).max() < 2e-4
    assert np.abs(bt709.matrix - np.array(profiles.SRGB).T).max() < 2e-4
    assert colour.of_space(bt709) is None
    assert colour.of_space(p3) is not None
    assert colour_spaces.by_code_points(2, 13) is None
    assert colour_spaces.by_code_points(1, 2) is None
    for transfer, name in ((16, "PQ"), (18, "HLG")):
        with pytest.raises(colour.DoubtfulProfile, match=name):
            colour_spaces.by_code_points(9, transfer)
    xy = (0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.329)
    assert np.abs(colour_spaces.by_chromaticities(xy, 2.2).matrix - bt709.matrix).max() < 1e-6
    for exponent in (0.5, 2.2):
        assert colour_spaces.by_chromaticities(xy, exponent).curves == (icc_tags.power(exponent),) * 3
    found = colour_spaces.by_chromaticities(xy, 1)
    assert (found.space, found.is_lab, found.table, found.doubts) == (icc.RGB, False, None, ())
    assert colour_spaces.by_chromaticities(xy, 0) is None
    assert colour_spaces.by_chromaticities((0.64, 0.33) * 3 + (0.3127, 0.329), 2.2) is None
    assert colour_spaces.by_chromaticities((*xy[:6], 0.3, 0), 2.2) is None


@pytest.mark.parametrize("kind", ["XYZ", "TRC", "none"])
def test_unknown_code_points_alone_are_in_doubt(kind):
    some = {name: tag for name, tag in profiles.matrix_tags().items() if name.endswith(kind.encode())}
    with pytest.raises(colour.DoubtfulProfile, match="code points"):
        colour.transform(profiles.build({**some, b"cicp": profiles.cicp(2, 2)}), 3)
    assert colour.transform(profiles.build({**some, b"cicp": profiles.cicp(1, 13)}), 3) is None


def test_curves_end_at_their_tables_ends():
    curve = icc_tags.Curve(table=np.array([0, 65535, 0], ">u2"))
    assert curve(np.array([-1, 0, 0.25, 0.5, 0.75, 1, 2])).tolist() == [0, 0, 0.5, 1, 0.5, 0, 0]
    square = icc_tags.power(2)
    assert square(np.array([-0.5, 0.5])).tolist() == [-0.25, 0.25]
