"""`gpu_damage.py`: its kernel, compiled for the host, says what a single reader says, and keeps to its memory."""

from __future__ import annotations

import random
from pathlib import Path

import cv2
import numpy as np
import pytest

from helpers import entropy_reader, kernel_on_host
from helpers.hostile import EOI, photo, scan_start
from nudenet_steps.preprocess import entropy, jpeg

pytestmark = pytest.mark.needs("g++")


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    return kernel_on_host.build(Path(tmp_path_factory.mktemp("kernel")))


def picture(*options: int, width: int = 320, height: int = 180) -> bytes:
    pixels = np.asarray(photo(width, height)).copy()
    pixels[::3] ^= 85
    return cv2.imencode(".jpg", pixels, options)[1].tobytes()


def says(kernel, data: bytes) -> tuple[bool, bool]:
    """What the kernel and the single reader say of a file."""
    head = jpeg.read_header(data).head
    coding = entropy.read(head)
    intervals = entropy.intervals(data, len(head), coding)
    alone = all(entropy_reader.is_whole(data[start:end], coding.tables[0], blocks) for start, end, blocks in intervals)
    return kernel_on_host.is_whole(kernel, data, coding, intervals), alone


@pytest.mark.parametrize(
    "options",
    [
        [],
        [cv2.IMWRITE_JPEG_QUALITY, 100],
        [cv2.IMWRITE_JPEG_OPTIMIZE, 1],
        [cv2.IMWRITE_JPEG_RST_INTERVAL, 40],
        [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444],
        [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422],
    ],
)
def test_whole_files(kernel, options):
    assert says(kernel, picture(*options)) == (True, True)
    assert says(kernel, picture(*options, width=9, height=7)) == (True, True)


@pytest.mark.parametrize("options", [[], [cv2.IMWRITE_JPEG_RST_INTERVAL, 200], [cv2.IMWRITE_JPEG_QUALITY, 98]])
def test_damaged_files(kernel, options):
    data, rng, found = picture(*options), random.Random(2), set()
    start, end = scan_start(data), len(data) - 2
    for _ in range(25):
        at, length = rng.randrange(start, end), rng.choice((1, 1, 40))
        body = rng.choice(
            (
                data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 : end],
                data[:at] + rng.randbytes(length) + data[at + length : end],
                data[:at] + data[at + length : end],
                data[:at],
                data[: end - 1] + rng.randbytes(rng.randrange(3)),
                data[:at] + b"\xff\xd3" + data[at:end],
            )
        )
        try:
            here, alone = says(kernel, body + EOI)
        except TypeError:  # a restart marker is gone: the kernel is not asked
            continue
        assert here == alone
        found.add(here)
    assert found == {True, False}


@pytest.mark.parametrize(("first", "last"), [(0, 1), (1, 64)], ids=["DC", "AC"])
def test_coefficients_that_no_picture_has(kernel, first, last):
    data = bytearray(picture())
    steps = data.index(b"\xff\xdb") + 5
    data[steps + first : steps + last] = b"\xff" * (last - first)
    assert says(kernel, bytes(data)) == (False, False)
