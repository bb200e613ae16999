"""`jpeg.py`: what it decodes agrees with other decoders, what it refuses it refuses early and by name."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from conftest import DATA
from data.vectors import table
from helpers import hostile
from helpers.hostile import encode, photo
from nudenet_steps.preprocess import jpeg

GOOD = (DATA / "astronaut_720p.jpg").read_bytes()


def decode(data: bytes, min_width: int = 320, min_height: int = 180, strict: bool = True) -> np.ndarray:
    return jpeg.decode(data, jpeg.read_header(data), min_width, min_height, strict)


def refusal(data: bytes, limits: jpeg.Limits | None = None) -> jpeg.JpegError:
    limits = limits or jpeg.Limits()
    with pytest.raises(jpeg.JpegError) as refused:
        jpeg.check_size(data, limits)
        header = jpeg.read_header(data)
        jpeg.check_limits(header, limits)
        jpeg.decode(data, header, 320, 180)
    return refused.value


def mean_difference(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


@pytest.mark.parametrize(
    ("size", "least", "expected"),
    [
        ((1280, 720), (320, 180), (320, 180)),
        ((1920, 1080), (320, 180), (480, 270)),  # 2/8; 1/8 would be below
        ((3840, 2160), (320, 180), (480, 270)),
        ((640, 360), (320, 180), (320, 180)),
        ((720, 1280), (101, 180), (180, 320)),
        ((512, 288), (320, 180), (320, 180)),  # exactly 5/8
        ((513, 288), (320, 180), (513, 288)),  # 5/8 would have to be resized once more
        ((600, 400), (320, 213), (600, 400)),
        ((1000, 750), (320, 240), (500, 375)),  # 4/8, not 3/8
        ((750, 1000), (240, 320), (375, 500)),
        ((1279, 720), (320, 180), (320, 180)),  # 319.75 is rounded up
        ((200, 100), (320, 160), (200, 100)),  # never enlarged
        ((321, 181), (320, 180), (321, 181)),
        ((1, 1), (180, 180), (1, 1)),
        ((3000, 3), (320, 1), (375, 1)),
    ],
)
def test_decodes_at_the_least_scale_that_is_enough_and_fast_or_exact(size, least, expected):
    pixels = decode(encode(photo(*size)), *least)
    assert pixels.shape == (expected[1], expected[0], 3)
    assert pixels.dtype == np.uint8


def test_scaled_decode_is_the_picture():
    full = np.asarray(Image.open(io.BytesIO(GOOD)))
    assert mean_difference(decode(GOOD), cv2.resize(full, (320, 180), interpolation=cv2.INTER_AREA)) < 2


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"quality": 30}]
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_full_decode_agrees_with_pillow(mode, options):
    data = encode(photo(161, 97, mode), **options)
    # Pillow's own libjpeg may upsample colours in another way: a little per edge.
    assert mean_difference(decode(data, 161, 97), np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))) < 1.5


def test_every_subsampling_is_known():
    data = hostile.subsampled_441(64, 96, (200, 30, 60))
    header = jpeg.read_header(data)
    assert (header.width, header.height, header.colorspace) == (64, 96, "YCbCr")
    assert mean_difference(decode(data, 64, 96), np.asarray(Image.open(io.BytesIO(data)))) < 1.5
    # What the decoder is asked about must still be what we have read.
    with pytest.raises(jpeg.JpegError, match=r"damaged JPEG: .*"):
        jpeg.read_header(data[: data.index(b"\xff\xc4")] + hostile.with_size(data, 640, 480)[2:])


def test_cmyk_agrees_with_pillow():
    data = encode(photo(160, 90, "CMYK"))
    assert jpeg.read_header(data).colorspace == "CMYK"
    assert mean_difference(decode(data, 160, 90), np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))) < 1.5
    assert mean_difference(decode(data, 160, 90), np.asarray(photo(160, 90))) < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_agrees_with_opencv(orientation):
    data = hostile.with_exif_orientation(encode(photo(640, 320)), orientation)
    header = jpeg.read_header(data)
    turned = orientation >= 5
    assert header.orientation == orientation
    assert header.upright_size == ((320, 640) if turned else (640, 320))
    reference = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert mean_difference(decode(data, *header.upright_size), reference) < 1.5
    scaled = decode(data, 160, 320) if turned else decode(data, 320, 160)
    assert scaled.shape == ((320, 160, 3) if turned else (160, 320, 3))


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"Exif\0\0",
        b"Exif\0\0MM\0*\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x13\x01\3\0\1\0\0\0\6\0\0\0",
        b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\x01\3\0\1\0\0\0\x63\0\0\0",
    ],
    ids=["none", "empty", "offset beyond the end", "endless list", "orientation 99"],
)
def test_unreadable_exif_means_upright(exif):
    assert jpeg.read_header(GOOD[:2] + hostile.segment(0xE1, exif) + GOOD[2:]).orientation == 1


def test_only_the_first_exif_counts():
    twice = hostile.with_exif_orientation(hostile.with_exif_orientation(GOOD, 3), 6)
    assert jpeg.read_header(twice).orientation == 6


BAD = hostile.bad_pictures(GOOD)


@pytest.mark.parametrize("name", BAD)
def test_bad_pictures_are_refused_with_their_reason(name):
    data, reason, message = BAD[name]
    error = refusal(data)
    assert error.reason == reason
    assert message in str(error)


@pytest.mark.parametrize("progressive", [False, True])
def test_every_truncation_is_refused(progressive):
    data = encode(photo(160, 90), progressive=progressive)
    for length in range(0, len(data) - 1, 7):
        assert refusal(data[:length]).reason in ("empty", "not_jpeg", "truncated", "damaged")


def test_not_strict_decodes_what_is_there():
    pixels = decode(GOOD[: len(GOOD) // 2] + hostile.EOI, strict=False)
    reference = decode(GOOD)
    assert mean_difference(pixels[:60], reference[:60]) < 1
    assert mean_difference(pixels[-30:], reference[-30:]) > 20


def test_limits_are_inclusive_and_say_what_they_are():
    pixels = 1280 * 720
    limits = jpeg.Limits(max_bytes=len(GOOD), max_pixels=pixels)
    jpeg.check_size(GOOD, limits)
    jpeg.check_limits(jpeg.read_header(GOOD), limits)
    assert f"{pixels} pixels, the limit is {pixels - 1}" in str(refusal(GOOD, jpeg.Limits(max_pixels=pixels - 1)))
    assert f"the limit is {len(GOOD) - 1}" in str(refusal(GOOD, jpeg.Limits(max_bytes=len(GOOD) - 1)))


def test_scans_are_counted_where_they_are():
    assert jpeg.read_header(GOOD).scans == 1
    plain = encode(photo(64, 64), progressive=True)
    assert jpeg.read_header(plain).scans == plain.count(b"\xff\xda")
    comment = hostile.segment(0xFE, hostile.EOI + b"\xff\xda" * 3)  # neither an end nor scans
    second = plain.index(b"\xff\xda", plain.index(b"\xff\xda") + 2)
    assert jpeg.read_header(plain[:second] + comment + plain[second:]).scans == plain.count(b"\xff\xda")
    assert jpeg.read_header(plain + b"\xff\xda" * 500).scans == plain.count(
        b"\xff\xda"
    )  # an appended video or the like
    assert jpeg.read_header(hostile.many_scans(99)).scans == 99
    assert jpeg.read_header(hostile.progressive_bomb(64, 64, 43)).scans == 43


def test_progressive_work_grows_with_scans_pixels_and_bytes():
    jpeg.check_limits(jpeg.read_header(hostile.progressive_bomb(3000, 2000, 43)), jpeg.Limits())
    assert refusal(hostile.progressive_bomb(8000, 6000, 8)).reason == "too_many_scans"
    noise = encode(photo(640, 360), progressive=True)
    header = jpeg.read_header(noise)
    work = (header.scans + 4) * 640 * 360 + 16 * len(noise)
    jpeg.check_limits(header, jpeg.Limits(max_scan_work=work))
    assert str(work) in str(refusal(noise, jpeg.Limits(max_scan_work=work - 1)))


def test_the_decoder_cannot_be_shown_another_size_than_the_limits():
    """A marker without length hides a second frame header from a naive walk."""
    small = hostile.with_size(GOOD, 64, 64)
    frame = GOOD[GOOD.index(b"\xff\xc0") :][:19]
    assert refusal(small[:2] + frame + small[2:]).reason == "damaged"


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_anything_after_the_start_marker_is_refused_cleanly(tail):
    refusal(b"\xff\xd8\xff" + tail)


@settings(max_examples=300, deadline=None)
@given(st.integers(2, 700), st.binary(min_size=1, max_size=8))
def test_damaged_headers_decode_or_are_refused(position, junk):
    data = GOOD[:position] + junk + GOOD[position + len(junk) :]
    try:
        header = jpeg.read_header(data)
        jpeg.check_limits(header, jpeg.Limits())
        assert jpeg.decode(data, header, 320, 180).shape[2] == 3
    except jpeg.JpegError as error:
        assert error.reason and str(error)


# --- edges ---


def test_headers_that_end_too_early_are_truncated():
    for length in (GOOD.index(b"\xff\xdb"), GOOD.index(b"\xff\xda"), GOOD.index(b"\xff\xda") + 4):
        assert refusal(GOOD[:length]).reason == "truncated"
    thumbnail = hostile.segment(0xE1, b"Exif\0\0" + hostile.EOI)  # whose end is not the picture's
    assert refusal(GOOD[:2] + thumbnail + GOOD[2 : len(GOOD) // 2]).reason == "truncated"
    head = jpeg.read_header(GOOD).head
    assert GOOD.startswith(head)
    assert head.rindex(b"\xff\xda") == GOOD.index(b"\xff\xda")


@pytest.fixture
def recent(monkeypatch):
    found: list[jpeg.Header] = []
    monkeypatch.setattr(jpeg, "_recent", found)
    return found


def test_headers_that_come_again_are_not_read_again(recent, monkeypatch):
    header = jpeg.read_header(GOOD)
    assert recent == [header]
    with monkeypatch.context() as patched:
        patched.setattr(jpeg, "_walk_segments", None)
        assert jpeg.read_header(GOOD) == header
        other_pixels = GOOD[: len(header.head)] + GOOD[len(header.head) + 100 :]
        assert jpeg.read_header(other_pixels) == header._replace(file_bytes=len(other_pixels))
    comment = hostile.segment(0xFE, b"of another camera")
    assert jpeg.read_header(GOOD[:2] + comment + GOOD[2:]).head == header.head[:2] + comment + header.head[2:]
    assert len(recent) == 2
    assert refusal(GOOD[: len(header.head) - 9]).reason == "damaged"


def test_only_short_headers_that_say_all_are_remembered(recent):
    jpeg.read_header(hostile.many_scans(9))
    one, many = (hostile.progressive_bomb(64, 64, scans) for scans in (1, 43))
    assert jpeg.read_header(one).scans == 1
    assert recent == []
    assert many.startswith(jpeg.read_header(one).head)
    assert jpeg.read_header(many).scans == 43
    room = 4096 - len(jpeg.read_header(GOOD).head) - 4
    recent.clear()
    jpeg.read_header(GOOD[:2] + hostile.segment(0xFE, bytes(room + 1)) + GOOD[2:])
    assert recent == []
    jpeg.read_header(GOOD[:2] + hostile.segment(0xFE, bytes(room)) + GOOD[2:])
    assert len(recent) == 1
    for i in range(40):
        jpeg.read_header(GOOD[:2] + hostile.segment(0xFE, bytes([i])) + GOOD[2:])
    assert [header.head[6] for header in recent] == list(range(39, 23, -1))


@pytest.mark.parametrize("marker", [b"\xff\xe1\0\1", b"\xff\xe1\0\0", b"\xff\x01\0\4ab", b"\xff\xd8\0\4ab"])
def test_markers_that_decoders_read_in_other_ways_are_refused(marker):
    error = refusal(GOOD[:2] + marker + GOOD[2:])
    assert error.reason == "damaged"
    assert f"marker ff{marker[1]:02x} with length" in str(error)


@pytest.mark.parametrize("parameters", [b"\0\x3f\0", b"\0\0\0"])
def test_every_truncation_between_scans_is_refused(parameters):
    data = table.multi_scan(photo(96, 64), parameters)
    for start in [i for i in range(len(data) - 1) if data[i : i + 2] == b"\xff\xda"]:
        for length in range(start, start + 14):
            assert refusal(data[:length]).reason in ("truncated", "damaged")


def test_scans_are_counted_whatever_stands_before_the_first():
    data = table.multi_scan(photo(96, 64))
    first = data.index(b"\xff\xda")
    comment = hostile.segment(0xFE, b"\3\3\3\3\3\3")  # as many as there are components
    assert jpeg.read_header(data[:first] + comment + data[first:]).scans == 3
    scans = [i for i in range(len(data) - 1) if data[i : i + 2] == b"\xff\xda"] + [len(data) - 2]
    third_first = data[:first] + data[scans[2] : scans[3]] + data[first : scans[2]] + hostile.EOI
    header = jpeg.read_header(third_first)
    assert header.scans == 3
    assert mean_difference(jpeg.decode(third_first, header, 96, 64), decode(data, 96, 64)) == 0


def test_limits_of_scans_are_inclusive():
    two = hostile.progressive_bomb(64, 64, 2)
    header = jpeg.read_header(two)
    jpeg.check_limits(header, jpeg.Limits(max_scans=2))
    assert refusal(two, jpeg.Limits(max_scans=1)).reason == "too_many_scans"
    assert refusal(two, jpeg.Limits(max_scan_work=1)).reason == "too_many_scans"
    jpeg.check_limits(jpeg.read_header(GOOD), jpeg.Limits(max_scan_work=1))  # one scan costs what its pixels cost


def test_where_lenient_decoding_breaks_off_it_shows_nothing_of_other_pictures():
    data = table.multi_scan(photo(96, 64))
    broken = data[: len(jpeg.read_header(data).head) + 20] + bytes.fromhex("ffda0008")
    others = [np.full((64, 96, 3), 200, np.uint8) for _ in range(20)]
    del others
    assert not decode(broken, 96, 64, strict=False).any()
