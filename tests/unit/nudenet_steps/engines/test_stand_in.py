"""The stand-in engines: the detector's shapes, and a known time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nudenet_steps.engines import engine_class, stand_in
from nudenet_steps.postprocess import nms


@pytest.mark.parametrize(("name", "seconds"), [("stand_in_fast", 0), ("stand_in_slow", 0.01 + 3 * 0.015)])
@pytest.mark.parametrize(("height", "width", "candidates"), [(180, 320, 1260), (320, 320, 2100)])
def test_every_picture_gets_one_box_in_a_known_time(monkeypatch, name, seconds, height, width, candidates):
    slept = []
    monkeypatch.setattr(stand_in.time, "sleep", slept.append)
    engine = engine_class(name)(Path(), 8)
    output = engine.infer([np.zeros((n, 3, height, width), np.float32) for n in (1, 2)])
    assert output.shape == (3, candidates, 6)
    assert output.dtype == np.float32
    assert slept == [pytest.approx(seconds)]
    (row,) = nms.detect(output[2], np.array([1, 1, width, height], np.float32), nms.Settings())
    np.testing.assert_allclose(row, [width / 4, height / 4, 3 * width / 4, 3 * height / 4, 1, 0.9], rtol=1e-6)
