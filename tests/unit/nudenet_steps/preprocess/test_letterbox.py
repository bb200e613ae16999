"""`letterbox.py`: aspect kept, padding black, and coordinates that find their way back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nudenet_steps.preprocess import letterbox
from nudenet_steps.preprocess.canvas import CANVASES, Canvas

HEIGHT, WIDTH = CANVAS = Canvas(180, 320)
side = st.integers(1, 65500)


def write(pixels: np.ndarray, source: tuple[int, int] | None = None) -> tuple[np.ndarray, letterbox.Letterbox]:
    width, height = source or pixels.shape[1::-1]
    box = letterbox.fit(width, height, CANVAS)
    out = np.full((3, HEIGHT, WIDTH), np.nan, np.float32)
    letterbox.Writer().write(pixels, box, out)
    return out, box


@pytest.mark.parametrize(
    ("source", "fitted"),
    [
        ((1280, 720), (320, 180)),
        ((1920, 1080), (320, 180)),
        ((160, 90), (320, 180)),
        ((720, 1280), (101, 180)),
        ((1000, 1000), (180, 180)),
        ((640, 480), (240, 180)),
        ((1000, 100), (320, 32)),
        ((65500, 1), (320, 1)),
        ((1, 65500), (1, 180)),
    ],
)
def test_fits_the_input(source, fitted):
    box = letterbox.fit(source[0], source[1], CANVAS)
    assert (box.width, box.height) == fitted


@given(side, side)
def test_aspect_is_kept_within_half_a_pixel_and_one_side_is_full(width, height):
    box = letterbox.fit(width, height, CANVAS)
    assert box.width == WIDTH or box.height == HEIGHT
    scale = min(WIDTH / width, HEIGHT / height)
    assert box.width == 1 or abs(box.width - width * scale) <= 0.5 + 1e-9
    assert box.height == 1 or abs(box.height - height * scale) <= 0.5 + 1e-9


@given(side, side)
def test_geometry_maps_the_fitted_corner_onto_the_source_corner(width, height):
    box = letterbox.fit(width, height, CANVAS)
    x_scale, y_scale, source_width, source_height = box.geometry
    assert (source_width, source_height) == (width, height)
    assert box.width * x_scale == pytest.approx(width)
    assert box.height * y_scale == pytest.approx(height)


@pytest.mark.parametrize("shape", [(720, 405), (90, 160), (100, 100), (180, 320), (37, 1000), (1, 1)])
def test_padding_is_black_and_the_rest_is_the_picture(shape):
    out, box = write(np.full((*shape, 3), (255, 128, 64), np.uint8))
    picture = out[:, : box.height, : box.width]
    np.testing.assert_allclose(picture[0], 1.0, atol=1e-6)
    np.testing.assert_allclose(picture[1], 128 / 255, atol=1e-6)
    np.testing.assert_allclose(picture[2], 64 / 255, atol=1e-6)
    assert not out[:, box.height :].any()
    assert not out[:, :, box.width :].any()


def test_exact_pixels_are_copied():
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    out, _ = write(pixels, (1280, 720))
    np.testing.assert_array_equal(np.rint(out * 255).astype(np.uint8), pixels.transpose(2, 0, 1))
    assert out.min() >= 0
    assert out.max() <= 1


def test_one_writer_does_not_mix_pictures():
    writer = letterbox.Writer()
    outs = []
    for shape, value in (((180, 320), 255), ((50, 50), 100), ((180, 320), 7)):
        out = np.full((3, HEIGHT, WIDTH), np.nan, np.float32)
        pixels = np.full((*shape, 3), value, np.uint8)
        writer.write(pixels, letterbox.fit(shape[1], shape[0], CANVAS), out)
        outs.append(out)
    assert (outs[0] == 1).all()
    np.testing.assert_allclose(outs[1][:, :180, :180], 100 / 255, atol=1e-6)
    assert not outs[1][:, :, 180:].any()
    np.testing.assert_allclose(outs[2], 7 / 255, atol=1e-6)


def test_a_point_comes_back_to_its_source_pixel():
    """A white square of a portrait frame is found where the geometry says."""
    pixels = np.zeros((1280, 720, 3), np.uint8)
    pixels[800:900, 300:420] = 255
    out, box = write(pixels)
    ys, xs = np.nonzero(out[0] > 0.5)
    x_scale, y_scale, *_ = box.geometry
    found = xs.min() * x_scale, ys.min() * y_scale, (xs.max() + 1) * x_scale, (ys.max() + 1) * y_scale
    np.testing.assert_allclose(found, (300, 800, 420, 900), atol=x_scale)


@pytest.mark.parametrize(
    ("shape", "interpolation"),
    [
        ((360, 640), cv2.INTER_AREA),  # smaller without moire
        ((180, 640), cv2.INTER_AREA),
        ((360, 320), cv2.INTER_AREA),
        ((90, 160), cv2.INTER_LINEAR),  # larger without blocks
        ((179, 640), cv2.INTER_LINEAR),
        ((360, 319), cv2.INTER_LINEAR),
    ],
)
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_how_a_picture_is_scaled(shape, interpolation, kind):
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    out = np.ones((3, HEIGHT, WIDTH), kind)
    letterbox.Writer().write(pixels, letterbox.Letterbox(1280, 720, WIDTH, HEIGHT), out)
    expected = cv2.resize(pixels, (WIDTH, HEIGHT), interpolation=interpolation).transpose(2, 0, 1)
    unit = 1 if kind is np.uint8 else 255
    np.testing.assert_allclose(out * unit, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "interpolation"),
    [
        ((359, 639), cv2.INTER_LINEAR),  # reduced less than twofold
        ((181, 321), cv2.INTER_LINEAR),
        ((360, 639), cv2.INTER_AREA),  # twofold
        ((359, 640), cv2.INTER_AREA),
        ((179, 320), cv2.INTER_LINEAR),
    ],
)
@pytest.mark.parametrize("scale", [1, 2])  # 2: scaled while decoding
def test_up_to_twofold_pictures_are_sampled_as_nudenet_does(shape, interpolation, scale):
    pixels = np.random.default_rng(3).integers(0, 256, (*shape, 3), dtype=np.uint8)
    out = np.ones((3, HEIGHT, WIDTH), np.uint8)
    box = letterbox.Letterbox(scale * shape[1], scale * shape[0], WIDTH, HEIGHT)
    letterbox.Writer().write(pixels, box, out)
    np.testing.assert_array_equal(
        out.transpose(1, 2, 0), cv2.resize(pixels, (WIDTH, HEIGHT), interpolation=interpolation)
    )


def test_inputs_beyond_the_largest_canvas_are_written_whole():
    pixels = np.random.default_rng(2).integers(0, 256, (400, 500, 3), dtype=np.uint8)
    writer, outs = letterbox.Writer(), []
    for _ in range(2):
        outs.append(np.full((3, 400, 500), np.nan, np.float32))
        writer.write(pixels, letterbox.fit(500, 400, Canvas(400, 500)), outs[-1])
    for out in outs:
        np.testing.assert_allclose(out * 255, pixels.transpose(2, 0, 1), atol=1e-4)


@given(st.integers(1, 9000), st.integers(1, 9000))
def test_a_picture_has_the_same_size_on_every_canvas_that_holds_it(width, height):
    held = [letterbox.fit(width, height, one) for one in CANVASES if one.holds(width, height)]
    assert len(set(held)) == 1  # the largest holds all
    assert max(held[0].width, held[0].height) == 320


def test_a_pixel_of_rounding_does_not_depend_on_the_canvas():
    assert [letterbox.fit(1649, 930, canvas).width for canvas in (CANVAS, Canvas(320, 320))] == [320, 320]
