"""EXIF orientation at its edges; the table of vectors has what browsers make of whole files."""

import struct

import pytest

from data.vectors.table import orientation, tiff
from nudenet_steps.preprocess import exif

LONG = 4


def test_a_directory_at_the_very_end_is_empty():
    block = tiff([orientation(6)])
    for offset in (len(block) - 2, len(block) - 1, len(block), len(block) + 1, 2**32 - 1):
        assert exif.orientation(block[:4] + struct.pack("<I", offset) + block[8:]) == 1
    for length in range(len(block)):
        assert exif.orientation(block[:length]) == (6 if length >= 22 else 1)


def test_promises_of_many_entries_are_cut_to_what_is_there():
    assert exif.orientation(tiff([orientation(6)], count=0xFFFF)) == 6
    assert exif.orientation(tiff([orientation(6)], count=0)) == 1


@pytest.mark.parametrize(("first", "expected"), [(0, 6), (1, 1), (8, 8), (9, 6)])
def test_the_first_valid_entry_counts(first, expected):
    assert exif.orientation(tiff([orientation(first), orientation(6)])) == expected


def test_an_exif_directory_without_the_tag_leaves_the_root_its_turn():
    for pointer in (38, 8, 2**32 - 16):
        root = tiff([(0x8769, LONG, 1, struct.pack("<I", pointer)), orientation(6)])
        assert exif.orientation(root + tiff([(0x010F, 2, 1, b"A")])[8:]) == 6


def test_segments_are_exif_only_with_something_in_them():
    assert exif.is_exif(b"Exif\0\0I")
    assert not exif.is_exif(b"Exif\0\0")
    assert not exif.is_exif(b"exif\0\0I")
