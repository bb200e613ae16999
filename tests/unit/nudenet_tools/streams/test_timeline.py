"""The clock of a recording goes forward only."""

import numpy as np
import pytest

from nudenet_tools.streams.timeline import Timeline


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        ([5, 5.1, 5.2], [0, 0.1, 0.2]),
        ([-1, 0, 1], [0, 1, 2]),
        ([None, None, None], [0, 0.1, 0.2]),
        ([0, None, 0.2], [0, 0.1, 0.2]),
        ([None, 7, 7.1], [0, 0.1, 0.2]),
        ([0, 0.1, 3600.1, 3600.2], [0, 0.1, 0.2, 0.3]),
        ([90000, 90000.1, 0, 0.1], [0, 0.1, 0.2, 0.3]),
        ([0, 9.9, 10], [0, 9.9, 10]),  # a pause of the picture, not a jump
        ([0, 0.1, 0.0, 0.2], [0, 0.1, 0.1, 0.2]),  # a little out of order
        ([0, 1, 0.8, 0.9], [0, 1, 1.1, 1.2]),
        ([0, 20, 20.1, 0, 0.1], [0, 0.1, 0.2, 0.3, 0.4]),
    ],
)
def test_jumps_count_as_one_frame(stamps, expected):
    timeline = Timeline(10)
    assert np.allclose([timeline.seconds(stamp) for stamp in stamps], expected)


def test_slow_recordings_have_long_gaps():
    timeline = Timeline(1 / 60)  # a time lapse, a frame a minute
    assert [timeline.seconds(stamp) for stamp in (0, 60, 180, 240)] == [0, 60, 180, 240]
