"""`nms.py` against a plain reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nudenet_steps.postprocess import nms

IDENTITY = np.array([1, 1, 320, 180], np.float32)


def candidates(rng: np.random.Generator, count: int, spread: float = 40) -> np.ndarray:
    """FP32 [count,6]: clustered boxes, so that many overlap; some stick out of the picture."""
    centres = rng.uniform((-10, -10), (330, 190), (max(1, count // 8), 2))
    middle = centres[rng.integers(len(centres), size=count)] + rng.normal(0, spread / 8, (count, 2))
    half = rng.uniform(1, spread, (count, 2))
    confidence = rng.permutation(np.linspace(0.02, 0.98, count))  # no ties: their order is free
    return np.column_stack([middle - half, middle + half, rng.integers(0, 3, count), confidence]).astype(np.float32)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def reference(rows: np.ndarray, geometry: np.ndarray, wanted: nms.Settings) -> np.ndarray:
    """The definition, one candidate at a time."""
    x_scale, y_scale, width, height = geometry.tolist()
    clipped = []
    for x1, y1, x2, y2, class_id, confidence in rows.tolist():
        box = [
            min(max(x1 * x_scale, 0), width),
            min(max(y1 * y_scale, 0), height),
            min(max(x2 * x_scale, 0), width),
            min(max(y2 * y_scale, 0), height),
        ]
        if np.float32(confidence) >= np.float32(wanted.confidence_threshold) and box[2] > box[0] and box[3] > box[1]:
            clipped.append([*box, class_id, confidence])
    kept: list[list[float]] = []
    for row in sorted(clipped, key=lambda row: -row[5])[: nms.TOP_K]:
        if all(overlap(row, other) <= wanted.iou_threshold for other in kept):
            kept.append(row)
    if wanted.classes is not None:
        kept = [row for row in kept if int(row[4]) in wanted.classes]
    return np.array(kept[: wanted.max_detections], np.float32).reshape(-1, 6)


@pytest.mark.parametrize("iou_threshold", [0.0, 0.2, 0.45, 0.9, 1.0])
@pytest.mark.parametrize("confidence_threshold", [0.0, 0.25, 0.9])
def test_agrees_with_the_definition(confidence_threshold, iou_threshold):
    wanted = nms.Settings(confidence_threshold, iou_threshold, max_detections=1000)
    for seed, geometry in enumerate([IDENTITY, [4, 4, 1280, 720], [7.13, 7.11, 720, 1280]]):
        rows = candidates(np.random.default_rng(seed), 300)
        geometry = np.array(geometry, np.float32)
        np.testing.assert_allclose(nms.detect(rows, geometry, wanted), reference(rows, geometry, wanted), rtol=1e-5)


@pytest.mark.parametrize("wanted", [nms.Settings(classes=frozenset({1})), nms.Settings(max_detections=5)])
def test_classes_and_count_filter_after_suppression(wanted):
    rows = candidates(np.random.default_rng(9), 400)
    found = nms.detect(rows, IDENTITY, wanted)
    assert len(found) > 0
    np.testing.assert_allclose(found, reference(rows, IDENTITY, wanted), rtol=1e-5)


def test_only_the_best_candidates_enter_suppression():
    rows = candidates(np.random.default_rng(5), 1260)
    wanted = nms.Settings(0.0, 1.0, max_detections=1000)
    found = nms.detect(rows, IDENTITY, wanted)
    assert len(found) == nms.TOP_K
    np.testing.assert_allclose(found, reference(rows, IDENTITY, wanted), rtol=1e-5)


def test_suppression_ignores_the_class():
    box = [10, 10, 50, 50]
    rows = np.array([[*box, 0, 0.9], [*box, 1, 0.8]], np.float32)
    assert nms.detect(rows, IDENTITY, nms.Settings())[:, 4].tolist() == [0]


def test_equally_confident_ones_stay_in_order():
    rows = np.array([[20 * i, 0, 20 * i + 10, 10, i % 3, 0.5 + (i % 2) / 8] for i in range(16)] * 3, np.float32)
    rows[16:32, [1, 3]] += 20
    rows[32:, [1, 3]] += 40
    expected = [*rows[1::2], *rows[::2]]
    np.testing.assert_array_equal(nms.detect(rows, IDENTITY, nms.Settings()), expected)


def test_the_threshold_itself_counts():
    rows = np.array([[1, 1, 9, 9, 0, 0.25]], np.float32)
    assert len(nms.detect(rows, IDENTITY, nms.Settings(confidence_threshold=0.25))) == 1


@pytest.mark.parametrize(
    "row",
    [
        [10, 185, 50, 200, 0, 0.9],  # wholly in the padding below the picture
        [50, 50, 10, 10, 0, 0.9],  # inside out
        [5, 5, 5, 9, 0, 0.9],  # no area
        [np.nan, 5, 9, 9, 0, 0.9],
        [5, 5, 9, 9, 0, np.nan],
    ],
)
def test_what_is_no_box_is_dropped(row):
    rows = np.array([row, [1, 1, 9, 9, 1, 0.5]], np.float32)
    assert nms.detect(rows, IDENTITY, nms.Settings())[:, 4].tolist() == [1]
    assert nms.detect(rows[:1], IDENTITY, nms.Settings()).shape == (0, 6)


def test_the_candidates_are_left_alone():
    rows = candidates(np.random.default_rng(3), 200)
    before = rows.copy()
    nms.detect(rows, np.array([4, 4, 1280, 720], np.float32), nms.Settings())
    np.testing.assert_array_equal(rows, before)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 60), st.floats(0, 1), st.floats(0, 1))
def test_detections_are_valid_whatever_the_candidates(seed, count, confidence_threshold, iou_threshold):
    rows = candidates(np.random.default_rng(seed), count) if count else np.zeros((0, 6), np.float32)
    found = nms.detect(rows, IDENTITY, nms.Settings(confidence_threshold, iou_threshold))
    assert len(found) <= min(count, 100)
    assert (np.diff(found[:, 5]) <= 0).all()
    assert (found[:, 5] >= np.float32(confidence_threshold)).all()
    assert (found[:, :2] < found[:, 2:4]).all()
    assert (found[:, :4] >= 0).all()
    assert (found[:, 2:4] <= (320, 180)).all()
