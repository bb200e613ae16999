"""Which bytes of a header are put right, and which never."""

import pytest

from nudenet_steps.preprocess.header_edits import HeaderEdits, apply

APP0, APP1, APP2, APP14 = 0xE0, 0xE1, 0xE2, 0xEE
JFIF = b"JFIF\0\2\0\0\0\1\0\1\0\0"
ADOBE = b"Adobe\0\x64\0\0\0\0\7"
ICC = b"ICC_PROFILE\0"
BEFORE = 3  # bytes before the payload, so that offsets show


def edits(*segments, components=3, behind=b""):
    """The edits of (marker, payload) segments, each at the begin of its own data."""
    found = HeaderEdits()
    for marker, payload in segments:
        found.segment(bytes(BEFORE) + payload + behind, marker, BEFORE, BEFORE + len(payload))
    return found.finish(components)


@pytest.mark.parametrize("behind", [b"", b"more"])
def test_what_libjpeg_warns_of_is_put_right(behind):
    assert edits((APP0, JFIF), behind=behind) == [(BEFORE + 5, 1)]
    assert edits((APP14, ADOBE), behind=behind) == [(BEFORE + 11, 1)]
    assert edits((APP2, ICC + b"\1\2profile"), behind=behind) == [(BEFORE, 0)]


@pytest.mark.parametrize(
    ("marker", "payload"),
    [
        (APP0, JFIF[:-1]),
        (APP0, b"JFIF\0\1" + JFIF[6:]),
        (APP0, b"JFXX\0" + JFIF[5:]),
        (APP1, JFIF),
        (APP14, ADOBE[:-1]),
        (APP14, b"adobe" + ADOBE[5:]),
        (APP1, ADOBE),
        (APP2, ICC + b"\1"),
        (APP2, ICC + b"\1\1profile"),
        (APP2, b"icc_profile\0\1\2profile"),
        (APP1, ICC + b"\1\2profile"),
    ],
)
def test_what_libjpeg_does_not_look_at_stays(marker, payload):
    assert edits((marker, payload), behind=bytes(20)) == []


def test_a_segment_that_is_not_all_there_stays():
    found = HeaderEdits()
    found.segment(JFIF, APP0, 0, len(JFIF) + 1)
    assert found.finish(3) == []


@pytest.mark.parametrize(
    ("components", "transform", "assumed"),
    [(3, 0, None), (3, 1, None), (3, 2, 1), (3, 7, 1), (4, 0, None), (4, 2, None), (4, 1, 2), (4, 7, 2), (1, 2, 1)],
)
def test_unknown_colour_transforms_are_what_libjpeg_assumes(components, transform, assumed):
    found = edits((APP14, ADOBE[:-1] + bytes([transform])), components=components)
    assert found == ([] if assumed is None else [(BEFORE + 11, assumed)])


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        ([(1, 1, 1)], True),
        ([(2, 2, 1), (1, 2, 1)], True),
        ([(1, 1, 0)], False),
        ([(1, 2, 1)], False),
        ([(1, 2, 1), (1, 2, 1)], False),
        ([(1, 2, 1), (2, 3, 1)], False),
        ([(0, 1, 1)], False),
    ],
)
def test_profiles_are_whole_or_none(parts, whole):
    found = edits(*[(APP2, ICC + bytes([number, of]) + bytes(size)) for number, of, size in parts])
    assert found == ([] if whole else [(BEFORE, 0)] * len(parts))


def test_scan_parameters_are_those_of_a_sequential_scan():
    scan = bytes(BEFORE) + b"\xff\xda\0\x0a\2\1\0\2\0"
    found = HeaderEdits()
    found.sequential_scan(scan + b"\1\2\3", BEFORE)
    assert found.finish(3) == [(BEFORE + 9, 0), (BEFORE + 10, 63), (BEFORE + 11, 0)]
    found = HeaderEdits()
    found.sequential_scan(scan + b"\0\x3f\0", BEFORE)
    found.sequential_scan(scan, BEFORE)
    found.sequential_scan(scan + b"\1", BEFORE)  # the file ends here
    assert found.finish(3) == [(BEFORE + 9, 0)]


def test_edits_leave_the_file_itself_alone():
    data = b"abc"
    assert apply(data, [(0, 120), (2, 121)]) == b"xby"
    assert data == b"abc"
    assert apply(data, []) is data
