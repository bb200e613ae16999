"""`canvas.py`: never below NudeNet's scale, never more area than needed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nudenet_steps.preprocess import letterbox
from nudenet_steps.preprocess.canvas import CANVASES, LARGEST, LONGER_SIDE, SPECIFIED, Canvas, served, smallest

side = st.integers(1, 65500)
sizes = st.tuples(side, side)  # width, height


@pytest.mark.parametrize(
    ("width", "height", "canvas"),
    [
        (1280, 720, (180, 320)),
        (1920, 1080, (180, 320)),
        (1920, 800, (180, 320)),
        (5000, 1, (180, 320)),
        (720, 1280, (320, 180)),
        (1, 5000, (320, 180)),
        (1290, 2796, (320, 180)),
        (640, 480, (256, 320)),
        (3000, 2000, (256, 320)),
        (1280, 1024, (256, 320)),
        (3024, 4032, (320, 256)),
        (1000, 1000, (320, 320)),
        (1, 1, (320, 320)),
    ],
)
def test_which_canvas_a_picture_takes(width, height, canvas):
    assert smallest([(width, height)]) == canvas


@given(sizes)
def test_no_picture_is_smaller_than_in_nudenet(size):
    canvas = smallest([size])
    box = letterbox.fit(size[0], size[1], canvas)
    for fitted, source in zip((box.width, box.height), size, strict=True):
        assert fitted >= source * LONGER_SIDE / max(size) - 1.5  # half a pixel of each of two roundings
    assert max(box.width, box.height) <= LONGER_SIDE


@given(st.lists(sizes, min_size=1, max_size=8))
def test_no_canvas_is_larger_than_needed(pictures):
    chosen = smallest(pictures)
    assert all(chosen.holds(*size) for size in pictures)
    assert all(canvas.area >= chosen.area for canvas in CANVASES if all(canvas.holds(*size) for size in pictures))


@given(st.integers(1, 20000).flatmap(lambda h: st.tuples(st.integers(-(-h * 16 // 9), 65500), st.just(h))))
def test_16_9_and_wider_pictures_stay_on_the_specified_input(size):
    assert smallest([size]) == SPECIFIED


@given(st.lists(sizes, min_size=1, max_size=8))
def test_what_nothing_holds_takes_the_largest_scale(pictures):
    assert smallest(pictures, [SPECIFIED]) == SPECIFIED
    both = [Canvas(90, 160), SPECIFIED]
    assert smallest(pictures, both) == SPECIFIED


@pytest.mark.parametrize(
    ("pictures", "offered", "chosen"),
    [
        ([(50, 50)], [(320, 90), (160, 180)], (160, 180)),
        ([(50, 50)], [(90, 320), (180, 160)], (180, 160)),
        # Scales are compared as pixels of the longer side: 90 and 320, against 160 and 160.
        ([(50, 50), (10000, 100)], [(90, 320), (180, 160)], (180, 160)),
    ],
)
def test_what_nothing_holds_goes_where_its_worst_picture_is_largest(pictures, offered, chosen):
    assert smallest(pictures, [Canvas(*size) for size in offered]) == chosen


def test_a_request_without_readable_pictures_takes_the_first():
    assert smallest([]) == SPECIFIED


def test_every_canvas_fits_into_the_largest_and_is_longest_at_nudenets_scale():
    assert all(canvas.height <= LARGEST.height and canvas.width <= LARGEST.width for canvas in CANVASES)
    assert all(max(canvas) == LONGER_SIDE for canvas in CANVASES)
    assert any(canvas.holds(1, 1) for canvas in CANVASES), "a square must fit somewhere"


def test_the_configurations_dims_say_what_is_served():
    assert served([3, -1, -1]) == CANVASES
    assert served([3, 180, 320]) == (SPECIFIED,)
    for dims in ([3, -1, 320], [3, 200, 320]):
        message = r"give \[ 3, -1, -1 \] for all canvases, or one of \[ 3, 180, 320 \], \[ 3, 320, 180 \], "
        with pytest.raises(ValueError, match=message):
            served(dims)
