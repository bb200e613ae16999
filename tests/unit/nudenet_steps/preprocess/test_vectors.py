"""The server's reader of JPEG files, held to what Chromium shows for the table of odd files."""

import io

import numpy as np
import pytest
from PIL import Image

from data.vectors import table
from helpers.hostile import encode, photo
from nudenet_steps.preprocess import jpeg

VECTORS = table.jpegs()
ANSWERS = table.answers()
FARTHEST = 3  # of 255, in the mean of a cell: two builds of libjpeg-turbo round colours in their own ways


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_the_detector_sees_what_chromium_shows(vector):
    answer = ANSWERS[vector.name]
    if vector.refused:
        with pytest.raises(jpeg.JpegError) as refused:
            jpeg.decode(vector.data, jpeg.read_header(vector.data), 1, 1)
        assert refused.value.reason == vector.refused
        return
    assert answer is not None
    header = jpeg.read_header(vector.data)
    assert header.upright_size == (answer.width, answer.height)
    for strict in (True, False):
        pixels = jpeg.decode(vector.data, header, *header.upright_size, strict=strict)
        assert np.abs(table.cells(pixels).astype(int) - answer.cells).max() <= FARTHEST


@pytest.mark.parametrize("vector", [v for v in VECTORS if v.name.startswith("damage")], ids=lambda vector: vector.name)
def test_damage_is_decoded_where_it_is_allowed(vector):
    header = jpeg.read_header(vector.data)
    assert jpeg.decode(vector.data, header, *header.upright_size, strict=False).shape == (64, 96, 3)


def test_harmless_oddities_change_no_pixel():
    plain = encode(photo(96, 64), quality=95)
    expected = jpeg.decode(plain, jpeg.read_header(plain), 96, 64)
    vectors = {vector.name: vector.data for vector in VECTORS}
    for what in ("Se=0", "Ss=1", "Ah and Al set", "all of them", "profile doubled", "JFIF 2.0", "everything at once"):
        data = vectors[f"header: {what}"]
        header = jpeg.read_header(data)
        assert header.edits
        assert np.array_equal(jpeg.decode(data, header, 96, 64), expected)
    assert not jpeg.read_header(plain).edits
    assert not jpeg.read_header(vectors["header: profile"]).edits


@pytest.mark.parametrize("name", ["CMYK", "CMYK without Adobe's marker", "CMYK with JFIF"])
def test_ink_is_always_stored_inverted(name):
    data = next(vector.data for vector in VECTORS if vector.name == f"colour: {name}")
    pixels = jpeg.decode(data, jpeg.read_header(data), 96, 64)
    with Image.open(io.BytesIO(data)) as picture:
        assert np.abs(pixels.astype(int) - np.asarray(picture.convert("RGB"))).mean() < 1.5
    assert np.abs(pixels.astype(int) - np.asarray(photo(96, 64))).mean() < 4
