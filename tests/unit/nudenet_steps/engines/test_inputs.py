"""What `nudenet_trt` takes: one of two inputs, of a size that is served; and which requests run together."""

from __future__ import annotations

import numpy as np
import pytest

from nudenet_steps.engines import check_canvas, choose_input, groups, join, split
from nudenet_steps.preprocess.canvas import CANVASES


@pytest.mark.parametrize(("sent", "kind"), [({}, "none"), ({"pixels": 1, "input": 2}, "both")])
def test_none_or_both_inputs_are_refused(sent, kind):
    with pytest.raises(ValueError, match=f"exactly one of its inputs, 'pixels'.* or 'input'.*has {kind}"):
        choose_input({"pixels": None, "input": None} | sent)


def test_the_one_that_was_sent_is_taken():
    assert choose_input({"input": 1, "pixels": None}) == 1
    assert choose_input({"input": 2}) == 2


@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (2, 1, 180, 320), (1, 3, 320, 181)])
def test_other_sizes_are_refused_with_those_that_are_served(shape):
    with pytest.raises(ValueError, match=r"not served by nudenet_trt; send one of \[n,3,180,320\], \[n,3,320,180\]"):
        check_canvas(shape, CANVASES[:2])
    check_canvas((5, 3, 180, 320), CANVASES[:2])


def test_requests_of_one_canvas_and_type_run_together():
    sizes = [(1, 4, 5), (2, 5, 4), (1, 4, 5)]
    parts = [np.zeros((n, 3, h, w), np.uint8) for n, h, w in sizes] + [np.zeros((1, 3, 4, 5), np.float32)]
    assert groups(parts) == [[0, 2], [1], [3]]


def geometry(*sizes):
    return np.array([(1, 1, *size) for size in sizes], np.float32)


def test_pictures_of_several_canvases_are_taken_apart():
    part = np.arange(4 * 3 * 320 * 320, dtype=np.uint32).astype(np.uint8).reshape(4, 3, 320, 320)
    cut = split(part, geometry((1280, 720), (720, 1280), (0, 0), (1, 5000)), CANVASES)
    assert [one.shape for one in cut] == [(1, 3, 180, 320), (1, 3, 320, 180), (1, 3, 320, 320), (1, 3, 320, 180)]
    for i, one in enumerate(cut):
        assert np.shares_memory(one, part)
        np.testing.assert_array_equal(one[0], part[i, :, : one.shape[2], : one.shape[3]])


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((1, 3, 320, 320), [(1280, 720)]),  # alone: preprocessing has chosen
        ((2, 3, 180, 320), [(1280, 720), (0, 0)]),
        ((2, 3, 320, 180), [(0, 0), (0, 0)]),
        ((2, 3, 320, 320), None),
    ],
)
def test_pictures_of_one_canvas_stay_together(shape, sizes):
    part = np.zeros(shape, np.uint8)
    assert [id(one) for one in split(part, sizes and geometry(*sizes), CANVASES)] == [id(part)]
    assert len(split(np.zeros((2, 3, 180, 320)), geometry((9, 16), (1, 1)), CANVASES[:1])) == 1  # one is served


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (geometry((9, 16)), "must be what nudenet_preprocess answers for the same 2 pictures"),
        (geometry((9, 16), (-9, 16)), "must be what"),
        (geometry((9, 16), (np.nan, 16)), "must be what"),
        (geometry((9, 16), (np.inf, 16)), "must be what"),
        (geometry((16, 9), (9, 16)), "picture 1 takes 320x180; the pixels are 180x320"),
    ],
)
def test_geometry_of_other_pictures_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        split(np.zeros((2, 3, 180, 320), np.uint8), wrong, CANVASES)


def test_candidates_of_several_canvases_become_one_tensor():
    outputs = [np.full((1, count, 6), count, np.float32) for count in (3, 5, 4)]
    joined = join(outputs)
    assert joined.shape == (3, 5, 6)
    for row, output in zip(joined, outputs, strict=True):
        np.testing.assert_array_equal(row[: output.shape[1]], output[0])
        assert not row[output.shape[1] :].any()
    assert join(outputs[:1]) is outputs[0]
