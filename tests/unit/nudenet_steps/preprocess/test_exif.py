"""EXIF orientation at its edges, read by the server and by the Python client."""

import struct

import pytest

from data.vectors.table import orientation, tiff
from nudenet_client.jpeg import tiff_orientation
from nudenet_steps.preprocess import exif

LONG = 4


@pytest.fixture(params=[exif.orientation, tiff_orientation], ids=["server", "client"])
def read(request):
    return request.param


def test_a_directory_at_the_very_end_is_empty(read):
    block = tiff([orientation(6)])
    for offset in (len(block) - 2, len(block) - 1, len(block), len(block) + 1, 2**32 - 1):
        assert read(block[:4] + struct.pack("<I", offset) + block[8:]) == 1
    for length in range(len(block)):
        assert read(block[:length]) == (6 if length >= 22 else 1)


def test_promises_of_many_entries_are_cut_to_what_is_there(read):
    assert read(tiff([orientation(6)], count=0xFFFF)) == 6
    assert read(tiff([orientation(6)], count=0)) == 1


@pytest.mark.parametrize(("first", "expected"), [(0, 6), (1, 1), (8, 8), (9, 6)])
def test_the_first_valid_entry_counts(read, first, expected):
    assert read(tiff([orientation(first), orientation(6)])) == expected


def test_an_exif_directory_without_the_tag_leaves_the_root_its_turn(read):
    for pointer in (38, 8, 2**32 - 16):
        root = tiff([(0x8769, LONG, 1, struct.pack("<I", pointer)), orientation(6)])
        assert read(root + tiff([(0x010F, 2, 1, b"A")])[8:]) == 6


def test_segments_are_exif_only_with_something_in_them():
    assert exif.is_exif(b"Exif\0\0I")
    assert not exif.is_exif(b"Exif\0\0")
    assert not exif.is_exif(b"exif\0\0I")
