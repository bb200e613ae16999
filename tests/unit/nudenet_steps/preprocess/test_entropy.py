"""`entropy.py`: the tables and intervals of a file are such that reading them ends where the file does."""

from __future__ import annotations

import random

import cv2
import numpy as np
import pytest
import simplejpeg

from helpers import hostile
from helpers.entropy_reader import is_whole
from helpers.hostile import EOI, encode, photo, scan_start, segment
from nudenet_steps.preprocess import entropy, jpeg

QUALITY, OPTIMIZE, RESTART, SAMPLING = (
    cv2.IMWRITE_JPEG_QUALITY,
    cv2.IMWRITE_JPEG_OPTIMIZE,
    cv2.IMWRITE_JPEG_RST_INTERVAL,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
)
OPTIONS = {
    "as usual": [],
    "tables of its own": [OPTIMIZE, 1],
    "quality 100": [QUALITY, 100],
    "restart markers": [RESTART, 2],
    "a restart marker after each unit": [RESTART, 1],
    "4:4:4": [SAMPLING, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444],
    "4:2:2": [SAMPLING, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422],
    "4:4:0": [SAMPLING, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440],
    "4:1:1": [SAMPLING, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411],
}


def picture(*options: int, width: int = 90, height: int = 50) -> bytes:
    pixels = np.asarray(photo(width, height)).copy()
    pixels[::3] ^= 85  # long codes, too
    return cv2.imencode(".jpg", pixels, options)[1].tobytes()


def scan_marker(data: bytes) -> int:
    return data.index(b"\xff\xda")


def with_segment(data: bytes, marker: int, payload: bytes) -> bytes:
    """One more segment before the scan."""
    at = scan_marker(data)
    return data[:at] + segment(marker, payload) + data[at:]


def renamed(data: bytes, *names: int) -> bytes:
    """Other component names in frame and scan."""
    changed, frame, scan = bytearray(data), data.index(b"\xff\xc0") + 10, scan_marker(data) + 5
    changed[frame : frame + 9 : 3] = changed[scan : scan + 6 : 2] = bytes(names)
    return bytes(changed)


def look(data: bytes) -> tuple[int, entropy.Coding | None]:
    head = jpeg.read_header(data).head
    return len(head), entropy.read(head)


def checks(data: bytes) -> bool | None:
    """What the GPU would say of a file; None where it is not asked."""
    start, coding = look(data)
    found = entropy.intervals(data, start, coding) if coding else None
    if not coding or not found:
        return None
    return all(is_whole(data[start:end], coding.tables[0], blocks) for start, end, blocks in found)


def is_accepted(data: bytes) -> bool:
    try:
        simplejpeg.decode_jpeg(data, strict=True)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_whole_files_are_read_to_their_end(options):
    assert checks(picture(*options)) is True


def test_a_restart_interval_is_that_many_units():
    data = picture(RESTART, 2)  # 6 x 4 units of 4:2:0
    start, coding = look(data)
    assert (coding.units, coding.restart, coding.blocks) == (24, 2, 6)
    found = entropy.intervals(data, start, coding)
    assert [one.blocks for one in found] == [12] * 12
    assert found[0].start == scan_start(data)
    assert found[-1].end == len(data) - 2
    last = look(picture(RESTART, 7))[1]
    assert [one.blocks for one in entropy.intervals(picture(RESTART, 7), start, last)] == [42, 42, 42, 18]


@pytest.mark.parametrize("options", [[], [RESTART, 3], [OPTIMIZE, 1], [QUALITY, 30]])
def test_what_the_cpu_refuses_is_never_found_whole(options):
    data, rng = picture(*options), random.Random(1)
    start, end, refused = scan_start(data), len(data) - 2, 0
    for _ in range(400):
        at, length = rng.randrange(start, end), rng.choice((1, 1, 7, 60))
        body = rng.choice(
            (
                data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 : end],
                data[:at] + rng.randbytes(length) + data[at + length : end],
                data[:at] + data[at + length : end],
                data[:at] + rng.randbytes(1) + data[at:end],
                data[:at],
                data[: end - 1] + rng.randbytes(rng.randrange(3)),
            )
        )
        damaged = body + EOI
        if not is_accepted(damaged):
            refused += 1
            assert not checks(damaged)
    assert refused > 100


def test_components_of_one_name_are_not_mixed_up():
    """libjpeg-turbo takes the first of that name that is left, with its own factors."""
    assert is_accepted(renamed(picture(), 1, 1, 2))
    assert checks(renamed(picture(), 7, 3, 5)) is True


@pytest.mark.parametrize(("first", "last"), [(0, 1), (1, 64)], ids=["DC", "AC"])
def test_coefficients_that_no_picture_has_are_noticed(first, last):
    """libjpeg-turbo computes modulo 65536; other decoders would show another picture."""
    data = bytearray(picture())
    steps = data.index(b"\xff\xdb") + 5
    data[steps + first : steps + last] = b"\xff" * (last - first)
    assert is_accepted(bytes(data))
    assert checks(bytes(data)) is False


@pytest.mark.parametrize(
    "data",
    [
        encode(photo(40, 30, "L")),
        encode(photo(40, 30), progressive=True),
        encode(photo(40, 30, "CMYK")),
        picture().replace(b"\xff\xc4", b"\xff\xef"),  # no Huffman tables, as in Motion JPEG
        picture().replace(b"\xff\xdb", b"\xff\xef"),  # no quantizers
        renamed(picture(), 1, 1, 2),
        renamed(picture(), 1, 2, 1),
        renamed(picture(), 1, 1, 1),
        with_segment(picture(), 0xDB, bytes([0x10]) + bytes([0, 1] * 64)),  # 16 bits
        with_segment(picture(), 0xDB, bytes([0]) + bytes([1] * 64)),  # for the second time
        with_segment(picture(), 0xDB, bytes([5]) + bytes([1] * 64)),
        with_segment(picture(), 0xDB, bytes([2]) + bytes([1] * 63)),
        with_segment(with_segment(picture(), 0xDD, bytes(2)), 0xDD, bytes(2)),
        with_segment(picture(), 0xEE, b"Adobe\x00\x64\x00\x00\x00\x00\x00"),
        with_segment(picture(), 0xC1, bytes(15)),
    ],
    ids=[
        "grey",
        "progressive",
        "ink",
        "no tables",
        "no quantizers",
        "first name twice",
        "last name twice",
        "one name",
        "quantizers of 16 bits",
        "quantizers twice",
        "a fifth table of quantizers",
        "short quantizers",
        "restart interval twice",
        "Adobe without a transform",
        "two frames",
    ],
)
def test_other_kinds_are_left_to_the_cpu(data):
    assert entropy.read(data[: scan_start(data)]) is None


@pytest.mark.parametrize(
    "payload",
    [
        b"\x00" + bytes(15),  # short
        b"\x00" + bytes([3]) + bytes(15) + bytes(3),  # three codes of one bit
        b"\x00" + bytes([1]) + bytes(15),  # a value is missing
        b"\x20" + bytes(16),  # neither DC nor AC
        b"\x04" + bytes(16),
    ],
)
def test_tables_that_are_none_are_left_to_the_cpu(payload):
    data = picture()
    scan = scan_marker(data)
    assert entropy.read(data[:scan] + segment(0xC4, payload) + data[scan : scan_start(data)]) is None


def test_restart_markers_that_are_missing_or_in_disorder_are_noticed():
    data = picture(RESTART, 2)
    start, coding = look(data)
    first = data.index(b"\xff\xd0", start)
    for damaged in (
        data[:first] + data[first + 2 :],
        data[:first] + b"\xff\xd1" + data[first + 2 :],
        data[:first] + b"\xff\xd0" + data[first:],
        data[: scan_start(data)] + EOI,
    ):
        assert entropy.intervals(damaged, start, coding) is None


def test_files_of_one_camera_have_the_same_headers():
    def headers(data: bytes) -> bytes:
        return entropy.headers(jpeg.read_header(data).head)

    data = picture()
    exif = segment(0xE1, b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00")
    for harmless in (exif, segment(0xFE, b"a comment"), segment(0xED, b"Photoshop 3.0\x00")):
        assert headers(data[:2] + harmless + data[2:]) == headers(data)
    other = cv2.imencode(".jpg", np.asarray(photo(90, 50)))[1].tobytes()
    assert headers(other) == headers(data)  # other pixels only
    for different in (picture(QUALITY, 80), picture(width=91), picture(RESTART, 9), picture(OPTIMIZE, 1)):
        assert headers(different) != headers(data)
    adobe = segment(0xEE, b"Adobe\x00\x64\x00\x00\x00\x00\x01")
    assert headers(data[:2] + adobe + data[2:]) != headers(data)
    assert hostile.EOI not in headers(data)
    at = data.index(b"\xff\xdb")
    assert headers(data[:at] + b"\xff" + data[at:]) is None  # fill bytes
