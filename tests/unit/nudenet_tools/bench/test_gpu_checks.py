"""`gpu_checks.py`: which answers count as the same."""

from __future__ import annotations

import numpy as np
import pytest

from nudenet_tools.bench import gpu_checks

FACE, HAND = (10, 20, 110, 140, 1, 0.84), (300, 300, 380, 400, 12, 0.41)


def rows(*values):
    return np.array(values, np.float32).reshape(-1, 6)


def moved(row, pixels=0.0, confidence=0.0):
    return (*(value + pixels for value in row[:4]), row[4], row[5] + confidence)


def test_equal_answers_do_not_differ():
    assert gpu_checks.differences(rows(FACE, HAND), rows(HAND, FACE)) == (0, 0)


def test_small_differences_are_measured():
    pixels, confidence = gpu_checks.differences(rows(moved(FACE, 2, 0.01)), rows(FACE))
    assert (pixels, round(confidence, 4)) == (2, 0.01)


def test_what_is_near_the_threshold_may_be_missing():
    near = moved(HAND, confidence=-0.15)
    assert gpu_checks.differences(rows(FACE), rows(FACE, near)) == (0, 0)


@pytest.mark.parametrize(
    "found",
    [rows(), rows(FACE, HAND), rows((*FACE[:4], 2, FACE[5])), rows(moved(FACE, 20))],
    ids=["missing", "one more", "another class", "elsewhere"],
)
def test_other_answers_are_an_error(found):
    with pytest.raises(gpu_checks.AnswerError, match="one answer only"):
        gpu_checks.differences(found, rows(FACE))
