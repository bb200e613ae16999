"""What `nudenet_trt` takes: one of two inputs, of a size that is served; and which requests run together."""

from __future__ import annotations

import numpy as np
import pytest

from nudenet_steps.engines import check_canvas, choose_input, groups
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
