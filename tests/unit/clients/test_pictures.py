"""Pictures of the Python client: what is sent shows what a browser shows, or is refused by name."""

import contextlib
import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from data.vectors import coloured, parts, table
from helpers import hostile, profiles
from nudenet_client import PictureError, png, to_jpeg, upright_size
from nudenet_client.convert import read, upright_rgb
from nudenet_client.jpeg import colour_profile, read_header, without_metadata
from nudenet_client.pictures import file_to_jpeg, pixels_and_profile, upright_pixels

ORIENTATION = 0x0112
ANSWERS = table.answers()
SHOWN = [vector for vector in table.jpegs() if not vector.refused]
OTHERS = table.others()
FARTHEST = 4  # of 255, in the mean of a cell: JPEG's loss and two decoders


def gradient(height, width):
    """RGB picture, smooth so that JPEG keeps it, dark at the top and red to the right."""
    y, x = np.mgrid[:height, :width]
    return np.stack([255 * x / width, 200 * y / height, np.zeros_like(x)], axis=2).astype(np.uint8)


def pixels(data):
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "JPEG"
        return np.asarray(picture).astype(int)


def distance(shown, answer):
    assert (shown.shape[1], shown.shape[0]) == (answer.width, answer.height)
    return np.abs(table.cells(shown).astype(int) - answer.cells).max()


def named(name):
    return next(vector.data for vector in OTHERS if vector.name == f"format: {name}")


# --- one table, as Chromium answers it ---


@pytest.mark.parametrize("vector", SHOWN, ids=lambda vector: vector.name)
def test_jpegs_have_the_size_and_pixels_that_chromium_shows(vector):
    answer = ANSWERS[vector.name]
    assert upright_size(vector.data) == (answer.width, answer.height)
    assert distance(upright_pixels(vector.data), answer) <= FARTHEST


@pytest.mark.parametrize("vector", OTHERS, ids=lambda vector: vector.name)
def test_other_formats_are_sent_as_chromium_shows_them(vector, tmp_path):
    file = tmp_path / "picture"
    file.write_bytes(vector.data)
    if vector.refused:
        with pytest.raises(PictureError, match="viewers disagree"):
            to_jpeg(file)
        return
    assert distance(upright_pixels(to_jpeg(file)), ANSWERS[vector.name]) <= FARTHEST


def opens(data):
    """Whether Pillow takes it: some files it refuses over parts that nobody needs."""
    with contextlib.suppress(OSError, SyntaxError, ValueError), Image.open(io.BytesIO(data)):
        return True
    return False


@pytest.mark.parametrize("vector", [v for v in OTHERS if not v.refused and opens(v.data)], ids=lambda v: v.name)
def test_opened_pictures_are_sent_as_their_files_are(vector):
    with Image.open(io.BytesIO(vector.data)) as picture:
        assert to_jpeg(picture) == file_to_jpeg(vector.data)


def test_recorded_answers_are_those_of_this_table():
    assert set(ANSWERS) == {vector.name for vector in [*table.jpegs(), *table.others()]}


# --- what is sent ---


def test_bytes_and_jpeg_files_are_sent_untouched(tmp_path, astronaut):
    file = tmp_path / "a.jpg"
    file.write_bytes(astronaut)
    assert to_jpeg(astronaut) == to_jpeg(file) == to_jpeg(str(file)) == to_jpeg(memoryview(astronaut)) == astronaut
    assert to_jpeg(b"anything") == b"anything"


def test_arrays_images_and_png_files_are_encoded(tmp_path):
    picture = gradient(120, 200)
    Image.fromarray(picture).save(tmp_path / "a.png")
    for source in (picture, picture[:, ::-1][:, ::-1], Image.fromarray(picture), tmp_path / "a.png"):
        assert np.abs(pixels(to_jpeg(source)) - picture).max() <= 12


def test_pillow_images_are_turned_upright():
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # to be shown a quarter turn clockwise
    stored = io.BytesIO()
    Image.fromarray(np.rot90(gradient(120, 200))).save(stored, "JPEG", exif=exif, quality=95)
    with Image.open(stored) as picture:
        sent = to_jpeg(picture)
    assert np.abs(pixels(sent) - gradient(120, 200)).max() <= 20
    assert upright_size(stored.getvalue()) == (200, 120)
    assert upright_size(b"no picture") == (0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_files_are_turned_upright(orientation):
    stored = io.BytesIO()
    Image.fromarray(gradient(120, 200)).save(stored, "TIFF", tiffinfo={ORIENTATION: orientation})
    jpeg = hostile.with_exif_orientation(hostile.encode(Image.fromarray(gradient(120, 200)), quality=95), orientation)
    shown = upright_pixels(file_to_jpeg(stored.getvalue())).astype(int)
    assert np.abs(shown - upright_pixels(jpeg)).mean() < 3


def test_every_subsampling_is_known():
    data = hostile.subsampled_441(64, 96, (200, 30, 60))
    assert upright_size(data) == (64, 96)
    assert np.abs(upright_pixels(data).astype(int) - (200, 30, 60)).max() < 4


# --- pixels of more than 8 bits ---


def tiff_of(values):
    stored = io.BytesIO()
    Image.fromarray(values).save(stored, "TIFF")
    return stored.getvalue()


def test_deep_pixels_are_scaled():
    ramp = np.linspace(0, 1, 64, dtype=np.float32)[None].repeat(48, 0)
    for data in (tiff_of(ramp), tiff_of(np.round(ramp * 65535).astype(np.uint16))):
        grey = upright_pixels(file_to_jpeg(data)).astype(int)
        assert np.abs(grey - np.round(ramp * 255)[..., None]).max() <= 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0, 1.5]], np.float32), "floats of 0 to 1.5: scale them to 0..1"),
        (np.array([[-1, 1]], np.float32), "floats of -1 to 1"),
        (np.array([[np.nan, 1]], np.float32), "floats of nan to nan"),
        (np.array([[0, 300]], np.int32), "integers of 32 bits"),
    ],
)
def test_pixels_without_an_agreed_range_are_refused_by_name(values, message):
    with pytest.raises(PictureError, match=message):
        file_to_jpeg(tiff_of(values))


def test_the_transparent_grey_of_16_bits_is_white():
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)[None].repeat(8, 0)
    with Image.open(io.BytesIO(table.png(ramp, 0, 16))) as picture:
        picture.info["transparency"] = int(ramp[0, 3])
        grey = pixels(to_jpeg(picture))
    assert grey[:, 3].mean() > 200 > 50 > grey[:, 10].mean()


# --- what is refused ---


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (np.zeros((4, 4), np.uint8), "uint8 [4, 4]"),
        (np.zeros((4, 4, 3), np.float32), "float32 [4, 4, 3]"),
        (np.zeros((4, 4, 4), np.uint8), "uint8 [4, 4, 4]"),
        (np.zeros((0, 4, 3), np.uint8), "[0, 4, 3]"),
        (np.zeros((4, 4, 3, 1), np.uint8), "[4, 4, 3, 1]"),
        (np.zeros((1, 70000, 3), np.uint8), "70000x1 pixels cannot be encoded"),
        ("/no/such/file.jpg", "No such file"),
        ("/no/such\0file.jpg", "cannot be read"),
        ("/", "Is a directory"),
        (7, "got int"),
    ],
)
def test_what_is_no_picture_is_refused_here(picture, reason):
    with pytest.raises(PictureError) as caught:
        to_jpeg(picture)
    assert reason in str(caught.value)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_animations_are_not_reduced_to_their_first_picture(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black")]
    target = io.BytesIO()
    frames[0].save(target, kind, save_all=True, append_images=frames[1:])
    with pytest.raises(PictureError, match=f"{kind} of 2 frames: none was looked at"):
        file_to_jpeg(target.getvalue())
    with Image.open(target) as picture:  # who opens it has chosen the frame
        picture.seek(1)
        assert pixels(to_jpeg(picture)).max() < 10


def test_damaged_files_are_refused_and_what_is_no_picture_goes_to_the_server():
    whole = named("PNG")
    for damaged in (whole[:-200], whole[:100] + bytes(50) + whole[150:]):
        with pytest.raises(PictureError, match="damaged PNG"):
            file_to_jpeg(damaged)
        with Image.open(io.BytesIO(damaged)) as picture, pytest.raises(PictureError, match="damaged PNG"):
            to_jpeg(picture)
    assert file_to_jpeg(b"\x89PNG and no more") == b"\x89PNG and no more"
    assert read(b"hello") is None


def test_damaged_jpegs_are_decoded_as_far_as_they_go():
    whole = next(vector.data for vector in SHOWN if vector.name == "orientation: 1")
    half = next(vector.data for vector in table.jpegs() if vector.name == "damage: cut in the middle")
    shown = upright_pixels(half).astype(int)
    assert np.abs(shown[:16] - upright_pixels(whole)[:16]).max() < 3
    assert np.abs(shown[-16:] - upright_pixels(whole)[-16:]).mean() > 20


def test_pictures_that_cannot_be_decoded_say_so():
    with pytest.raises(PictureError, match="headers are damaged"):
        upright_pixels(b"\xff\xd8\xffhello")
    for vector in table.jpegs():
        if vector.refused == "unsupported" and "arithmetic" not in vector.name:
            with pytest.raises(PictureError, match=r"cannot be decoded|viewers disagree"):
                upright_pixels(vector.data)


def test_hostile_tags_are_the_files_own_trouble():
    """Pillow raises SyntaxError, struct.error and more on these, where it looks at EXIF at all."""
    turned = hostile.with_exif_orientation(hostile.encode(Image.fromarray(gradient(120, 200))), 6)
    mistyped = turned.replace(b"\x01\x12\x00\x03", b"\x01\x12\x00\x07")
    assert mistyped != turned
    for data in (mistyped, named("PNG, eXIf is no TIFF"), named("PNG, mistyped tags")):
        assert upright_pixels(file_to_jpeg(data)).ndim == 3
    tiff = bytearray(tiff_of(np.zeros((4, 4), np.uint8)))
    (directory,) = struct.unpack_from("<I", tiff, 4)
    (count,) = struct.unpack_from("<H", tiff, directory)
    for entry in range(count):
        broken = tiff.copy()
        broken[directory + 2 + 12 * entry + 2] = 200  # an unknown type
        with contextlib.suppress(PictureError):
            assert file_to_jpeg(bytes(broken))


# --- headers ---


def test_headers_that_cannot_be_read_have_no_size():
    good = SHOWN[0].data
    frame = good.index(b"\xff\xc0")
    for bad in (b"", good[:2], good[:frame], b"\0" + good, good[:2] + b"\0\0" + good[2:]):
        assert read_header(bad) is None
        assert without_metadata(bad) == bad
    assert read_header(hostile.with_size(good, 0, 64)) is None
    assert read_header(hostile.with_size(good, 96, 0)) is None
    no_length = good[:2] + b"\xff\xe1\0\1" + good[2:]
    assert read_header(no_length) is None
    assert read_header(good[:2] + b"\xff\xd0" + good[2:]) is None
    most = hostile.segment(0xFE, b"")
    assert read_header(good[:2] + most * 1990 + good[2:]).width == 96
    assert read_header(good[:2] + most * 2001 + good[2:]) is None


def test_metadata_is_what_no_pixel_depends_on():
    good = SHOWN[0].data
    extra = b"".join(hostile.segment(marker, b"metadata") for marker in (*range(0xE1, 0xEE), 0xEF, 0xFE))
    assert without_metadata(good[:2] + extra + good[2:]) == without_metadata(good)
    adobe = hostile.segment(0xEE, b"Adobe")
    assert adobe in without_metadata(good[:2] + adobe + good[2:])


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        ([(1, 1, b"abc")], b"abc"),
        ([(2, 2, b"def"), (1, 2, b"abc")], b"abcdef"),
        ([(1, 2, b"abc")], None),
        ([(1, 1, b"abc"), (1, 1, b"def")], b"abc"),
        ([(0, 1, b"abc")], None),
        ([(1, 1, b"")], None),
        ([], None),
    ],
)
def test_colour_profiles_are_whole_or_none(parts, whole):
    good = SHOWN[0].data
    segments = b"".join(table.icc(data, number, of) for number, of, data in parts)
    assert colour_profile(good[:2] + segments + good[2:]) == whole
    assert colour_profile(b"no JPEG") is None


def test_pictures_made_in_memory_may_have_exif():
    picture = Image.fromarray(gradient(64, 96))
    block = table.tiff([table.orientation(6)])
    for exif in (block, b"Exif\0\0" + block):
        picture.info["exif"] = exif
        assert upright_size(to_jpeg(picture)) == (64, 96)
    for wrong in (b"no TIFF at all", "text"):
        picture.info["exif"] = wrong
        assert upright_size(to_jpeg(picture)) == (96, 64)


def test_sixteen_bits_are_scaled_to_the_nearest_of_eight():
    halves = [257 * grey + more for grey in (0, 100, 254) for more in (128, 129)]
    values = np.repeat(np.array([[0, *halves, 65535]], np.uint16), 8, axis=0)
    grey = read(table.png(values, 0, 16))[0, :, 0].tolist()
    assert grey == [0, 0, 1, 100, 101, 254, 255, 255]


def test_the_transparent_grey_of_sixteen_bits_is_white_and_no_other():
    file = io.BytesIO()
    greys = np.repeat(np.array([[100, 40000, 40001, 65535]], np.uint16), 8, axis=0)
    Image.fromarray(greys).save(file, "PNG", transparency=40000)
    assert read(file.getvalue())[0, :, 0].tolist() == [0, 255, 156, 255]


def test_a_pngs_exif_is_found_behind_other_chunks_and_ends_with_its_chunk():
    block = table.tiff([table.orientation(6)])[:22]  # without the pointer to a next directory
    upright = np.zeros((8, 16, 3), np.uint8)
    assert read(table.png(upright, before=block)).shape == (16, 8, 3)
    assert read(table.png(upright, before=block[:-1])).shape == (8, 16, 3)  # the chunk's checksum is none of it
    assert read(table.png(upright, behind=block)).shape == (8, 16, 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa"])
def test_every_mode_with_alpha_is_put_on_white(mode):
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert pixels(to_jpeg(clear.convert(mode))).min() > 250


def test_sizes_go_up_to_65535_and_components_are_counted():
    assert upright_size(hostile.with_size(SHOWN[0].data, 40000, 50000)) == (40000, 50000)
    components = {vector.name: read_header(vector.data).components for vector in SHOWN}
    assert [components[f"colour: {name}"] for name in ("grey", "4:2:0", "CMYK")] == [1, 3, 4]


def test_files_without_metadata_stay_as_they_are():
    bare = next(vector.data for vector in SHOWN if vector.name == "colour: no marker at all")
    assert without_metadata(bare) == bare
    scan_only = bare[:2] + bare[bare.index(b"\xff\xda") :]
    assert without_metadata(scan_only) == scan_only


def test_postscript_is_no_picture_here(tmp_path, monkeypatch):
    """Pillow would start Ghostscript for it."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    data = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n%%EOF\n"
    assert file_to_jpeg(data) == data
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("deep", [np.uint16, np.float32])
def test_a_tiff_whose_zero_is_white_is_no_negative(deep):
    grey = gradient(64, 96).mean(2)
    values = (255 - grey) / 255 if deep is np.float32 else (255 - grey) * 257
    stored = io.BytesIO()
    Image.fromarray(values.astype(deep)).save(stored, "TIFF", tiffinfo={262: 0})
    data = stored.getvalue()
    at = data.index(struct.pack("<HHI", 262, 3, 1)) + 8
    shown = upright_pixels(file_to_jpeg(data[:at] + b"\0\0" + data[at + 2 :])).astype(int)
    assert np.abs(shown - grey[..., None]).mean() < 2
    shown = upright_pixels(file_to_jpeg(data[:at] + b"\1\0" + data[at + 2 :])).astype(int)
    assert np.abs(shown - (255 - grey)[..., None]).mean() < 2


def test_white_zeros_and_profiles_of_deep_pixels_are_exact():
    stored = io.BytesIO()
    Image.fromarray(np.array([[0, 257, 65535]], np.uint16)).save(stored, "TIFF", tiffinfo={262: 0})
    data = stored.getvalue()
    at = data.index(struct.pack("<HHI", 262, 3, 1)) + 8
    assert read(data[:at] + b"\0\0" + data[at + 2 :])[0, :, 0].tolist() == [255, 254, 0]
    floats = Image.fromarray(np.array([[0, 1]], np.float32))
    floats.info["icc_profile"] = profiles.grey(profiles.curv([1, 0]))
    assert upright_rgb(floats)[0, :, 0].tolist() == [255, 0]
    floats.info["transparency"] = 0  # is of 16 bits, and no float's
    assert upright_rgb(floats)[0, :, 0].tolist() == [255, 0]


def test_doubtful_colours_are_refused_with_the_format():
    picture = Image.fromarray(gradient(16, 16))
    doubtful = struct.pack(">I", 1) + coloured.negative()[4:]  # says another size than it has
    with pytest.raises(PictureError, match="viewers disagree over this TIFF's colours"):
        read(hostile.encode(picture, format="TIFF", icc_profile=doubtful))
    picture.info["icc_profile"] = doubtful
    with pytest.raises(PictureError, match="viewers disagree over this picture's colours"):
        to_jpeg(picture)


@pytest.mark.parametrize("most", [1023, 65535])
def test_pgm_files_of_more_than_8_bits_are_scaled(most):
    grey = gradient(64, 96).mean(2)
    head = f"P5 96 64 {most}\n".encode()
    shown = upright_pixels(file_to_jpeg(head + np.round(grey / 255 * most).astype(">u2").tobytes())).astype(int)
    assert np.abs(shown - grey[..., None]).mean() < 2


# --- colours ---


def test_pixels_that_are_written_again_keep_their_profile():
    picture = Image.fromarray(gradient(64, 96))
    colour, grey = hostile.encode(picture, quality=95), hostile.encode(picture.convert("L"), quality=95)
    display_p3, negative = profiles.matrix(profiles.DISPLAY_P3), coloured.negative()
    for profile in (display_p3, profiles.matrix(profiles.ADOBE_RGB, profiles.gamma(2.2)), profiles.matrix()):
        data = coloured.with_profile(colour, profile)
        kept, found = pixels_and_profile(data)
        assert found == profile
        assert np.array_equal(kept, upright_pixels(colour))
        again = hostile.encode(Image.fromarray(kept), quality=95, icc_profile=found)
        assert np.abs(upright_pixels(again).astype(int) - upright_pixels(data)).mean() < 2
    assert pixels_and_profile(colour)[1] is None
    rough = profiles.matrix(curves=profiles.curv([1, 0, 1]))
    of_grey = profiles.grey(profiles.curv([1, 0]))
    for base, profile in ((grey, of_grey), (grey, negative), (colour, negative), (colour, rough)):
        data = coloured.with_profile(base, profile)
        kept, found = pixels_and_profile(data)
        assert found is None
        assert np.array_equal(kept, upright_pixels(data))
        assert np.abs(kept.astype(int) - upright_pixels(base)).mean() > 30


def test_profiles_of_other_formats_and_of_pictures_in_memory_are_applied():
    picture = Image.fromarray(gradient(64, 96))
    negative = coloured.negative()
    shown = upright_pixels(coloured.with_profile(hostile.encode(picture, quality=95), negative)).astype(int)
    tiff = hostile.encode(picture, format="TIFF", icc_profile=negative)
    assert np.abs(upright_pixels(file_to_jpeg(tiff)) - shown).mean() < 3
    picture.info["icc_profile"] = negative
    assert np.abs(upright_pixels(to_jpeg(picture)) - shown).mean() < 3
    picture.info["icc_profile"] = "text"
    assert np.abs(upright_pixels(to_jpeg(picture)).astype(int) - gradient(64, 96)).mean() < 3
    ink = coloured.ink_profile(lambda colours: 1 - colours)
    plain = Image.fromarray(gradient(64, 96)).convert("CMYK")
    tiff = hostile.encode(plain, format="TIFF", icc_profile=ink)
    assert np.abs(upright_pixels(file_to_jpeg(tiff)).astype(int) - (255 - gradient(64, 96))).mean() < 6


def test_ink_under_a_profile_is_the_same_by_either_decoder(monkeypatch):
    ink = hostile.encode(Image.fromarray(gradient(64, 96)).convert("CMYK"), quality=95)
    data = coloured.with_profile(ink, coloured.ink_profile(lambda colours: 1 - colours))
    shown = upright_pixels(data)

    def refuse(*_, **__):
        raise ValueError

    monkeypatch.setattr("simplejpeg.decode_jpeg", refuse)
    assert np.abs(upright_pixels(data).astype(int) - shown).max() <= 2


def test_transparent_pixels_are_white_whatever_the_profile():
    clear = Image.new("RGBA", (16, 16), (200, 10, 10, 0))
    data = hostile.encode(clear, format="PNG", icc_profile=coloured.negative())
    assert upright_pixels(file_to_jpeg(data)).min() > 250


def test_a_profile_that_unpacks_without_end_is_cut():
    bomb = coloured.iccp(bytes(100_000_000))
    assert len(bomb) < 200_000
    data = hostile.encode(Image.fromarray(gradient(16, 16)), format="PNG")
    with contextlib.suppress(PictureError):
        file_to_jpeg(data[:33] + bomb + data[33:])


def test_code_points_that_are_cut_short_are_none():
    avif = next(vector.data for vector in OTHERS if vector.name == "format: AVIF")
    at = avif.index(b"colrnclx")
    for end in (at + 8, at + 11):
        with contextlib.suppress(PictureError):
            file_to_jpeg(avif[:end])
    bmp = next(vector.data for vector in OTHERS if vector.name == "profile: BMP, negative")
    for end in range(60, 140, 7):
        with contextlib.suppress(PictureError):
            file_to_jpeg(bmp[:end])


def test_colours_of_opened_jpegs_are_those_of_the_file():
    data = hostile.encode(Image.fromarray(gradient(64, 96)), quality=95)
    broken = data[:2] + table.icc(b"no profile") + table.icc(coloured.negative()) + data[2:]
    for file in (coloured.with_profile(data, coloured.negative()), broken):
        with Image.open(io.BytesIO(file)) as picture:
            sent = upright_pixels(to_jpeg(picture)).astype(int)
        assert np.abs(sent - upright_pixels(file)).mean() < 2


def test_code_points_that_nobody_knows_change_nothing():
    avif = next(vector.data for vector in OTHERS if vector.name == "format: AVIF")
    at = avif.index(b"colrnclx") + 8
    unknown = avif[:at] + b"\0\2\0\2" + avif[at + 4 :]
    assert np.abs(read(unknown).astype(int) - read(avif)).max() == 0


def test_bitmaps_with_primaries_of_their_own_are_refused_where_they_say_them():
    def bmp(first, last, space=b"\0\0\0\0"):
        return coloured._bmp(Image.fromarray(gradient(16, 16)), space, ((first, 0, 0), (0, 0, 0), (0, 0, last)), 1.0)

    assert read(bmp(0, 0)).shape == (16, 16, 3)
    assert read(bmp(0.5, 0.5, b"BGRs")).shape == (16, 16, 3)
    for first, last in ((2**-30, 0), (0, 0.5)):
        with pytest.raises(PictureError, match="primaries of its own"):
            read(bmp(first, last))


# --- files whose parts readers see differently ---


def refusal(data):
    with pytest.raises(PictureError) as caught:
        file_to_jpeg(data)
    return caught.value.reason


def test_what_viewers_disagree_over_or_cannot_show_whole_is_refused_by_name():
    rgb = np.asarray(hostile.photo(96, 64))
    grey = np.asarray(hostile.photo(96, 64, "L"))
    half = parts.header(rgb, parts.RGB) + parts.packed(rgb[:32])
    assert "its pixels end early" in refusal(half + parts.END)
    assert "its pixels end early" in refusal(half + parts.packed(rgb[32:]) + parts.END)  # a second stream is none
    deep = parts.header(rgb, parts.RGB, 16) + coloured.chunk(b"tRNS", bytes(6))
    assert "16 bits a colour with a transparent" in refusal(deep + parts.packed(rgb.astype(">u2")) + parts.END)
    target = io.BytesIO()
    hostile.photo(64, 64).save(target, "ICO", sizes=[(32, 32), (64, 64)])
    assert "ICO of 2 pictures" in refusal(target.getvalue())
    few = Image.fromarray(np.minimum(grey, 49))
    few.putpalette(bytes(range(150)))
    bitmap = bytearray(hostile.encode(few, format="BMP"))
    struct.pack_into("<I", bitmap, 46, 50)
    assert pixels(file_to_jpeg(bytes(bitmap))).shape == (64, 96, 3)
    bitmap[-1] = 53
    assert "a pixel has colour 53 of a palette of 50" in refusal(bytes(bitmap))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (96, 64)])
def test_whole_pictures_of_every_depth_are_complete(size, interlaced):
    """Pillow writes no interlaced files, so the passes are cut out of a picture here."""
    columns, rows = size
    picture = np.arange(columns * rows, dtype=np.uint8).reshape(rows, columns)
    passes = png.PASSES if interlaced else ((0, 0, 1, 1),)
    cut = [picture[top::down, left::right] for left, top, right, down in passes]
    lines = b"".join(b"\0" + row.tobytes() for one in cut if one.size for row in one)
    head = coloured.chunk(b"IHDR", struct.pack(">2I5B", columns, rows, 8, 0, 0, 0, interlaced))
    for missing in (0, 1):
        idat = coloured.chunk(b"IDAT", zlib.compress(lines[: len(lines) - missing]))
        data = parts.START + head + idat + parts.END
        assert png.is_complete(data) == (missing == 0)
    with Image.open(
        io.BytesIO(parts.START + head + coloured.chunk(b"IDAT", zlib.compress(lines)) + parts.END)
    ) as read_back:
        assert (np.asarray(read_back) == picture).all()


def test_tiff_palettes_of_8_bits_and_signs():
    few = hostile.photo(96, 64).quantize(16)
    shown = np.asarray(few.convert("RGB"))
    data = hostile.encode(few, format="TIFF")
    with Image.open(io.BytesIO(data)) as picture:
        planes = picture.tag_v2[320]
    narrow = data.replace(
        struct.pack(f"<{len(planes)}H", *planes), struct.pack(f"<{len(planes)}H", *(v >> 8 for v in planes))
    )
    assert narrow != data
    assert (read(data) == shown).all()
    assert (read(narrow) == shown).all()
    signed = Image.fromarray(np.zeros((4, 4), np.uint8))
    assert "pixels have a sign" in refusal(hostile.encode(signed, format="TIFF", tiffinfo={339: 2}))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (parts.START + coloured.chunk(b"IHDR", bytes(5)), "a PNG picture that cannot be read: "),
        (
            b"BM" + struct.pack("<IHHI", 64, 0, 0, 54) + struct.pack("<IiiHHI", 40, 4, 4, 1, 10, 0) + bytes(40),
            "a BMP picture",
        ),
        (b"II*\0" + struct.pack("<IH", 8, 0) + bytes(4), "a TIFF picture"),
        (b"GIF89a" + bytes(3), "a GIF picture"),
    ],
)
def test_pictures_that_pillow_cannot_open_are_named(data, reason):
    """The server would call them no JPEG, which helps nobody: the client takes their kind."""
    assert reason in refusal(data)


def test_pictures_of_more_pixels_than_pillow_opens_say_so():
    head = coloured.chunk(b"IHDR", struct.pack(">2I5B", 20_000, 20_000, 8, 2, 0, 0, 0))
    assert "exceeds limit" in refusal(parts.START + head + coloured.chunk(b"IDAT", b"") + parts.END)


def test_pixels_of_an_animation_are_no_file():
    """Pillow holds those of a WebP frame where others hold the file: they may look like one."""
    bitmap = parts.bitmap(np.asarray(hostile.photo(96, 64)), np.full((64, 96), 128, np.uint8), 108, 0, 0xFF000000)
    frame = np.zeros((80, 96, 4), np.uint8)
    frame.reshape(-1)[: len(bitmap)] = np.frombuffer(bitmap, np.uint8)[: frame.size]
    frame[..., 3] = 255
    frames = [Image.new("RGBA", (96, 80), "white"), Image.fromarray(frame)]
    target = io.BytesIO()
    frames[0].save(target, "WEBP", save_all=True, append_images=frames[1:], lossless=True, exact=True)
    with Image.open(target) as picture:
        picture.seek(1)
        assert pixels(to_jpeg(picture)).shape == (80, 96, 3)
