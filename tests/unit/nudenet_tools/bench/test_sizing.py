"""The sizing table."""

from __future__ import annotations

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from nudenet_tools.bench import sizing


def test_table_states_streams_per_server_and_servers_with_one_spare():
    lines = sizing.table([sizing.parse("two = cores=240")], [1, 10], fps=30, headroom=0.7).splitlines()
    assert lines[0] == "| server | pictures/s | streams at 30/s | 1 stream | 10 streams |"
    assert lines[2] == "| two = cores | 240 | 5 | 2 | 3 |"


@given(st.floats(1, 1e5), st.floats(0.1, 120), st.integers(1, 5000))
def test_without_the_spare_the_servers_still_carry_the_load_and_one_less_would_not(capacity, fps, streams):
    needed = sizing.Machine("any", capacity).servers(streams, fps, headroom=0.7) - 1
    load = streams * fps
    assert needed * capacity * 0.7 >= load * (1 - 1e-6)
    assert (needed - 1) * capacity * 0.7 < load * (1 + 1e-6)


@pytest.mark.parametrize("text", ["240", "=240", "box=", "box=fast", "box=0", "box=-3", "box=inf", "box=nan"])
def test_what_is_no_measurement_is_refused(text):
    with pytest.raises(typer.BadParameter, match="PICTURES_A_SECOND"):
        sizing.parse(text)
