"""Token buckets with a clock of our own."""

from __future__ import annotations

import pytest

from nudenet_tools.gateway.rates import Rates


def test_a_burst_then_the_rate():
    now = 0.0
    rates = Rates(2, 3, lambda: now)
    assert [rates.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert rates.take("b") == 0  # another client has its own
    now = 0.5
    assert [rates.take("a"), rates.take("a")] == [0, 0.5]
    now = 100.0
    assert [rates.take("a") for _ in range(4)] == [0, 0, 0, 0.5]


def test_refused_requests_cost_nothing():
    now = 0.0
    rates = Rates(1, 1, lambda: now)
    rates.take("a")
    for _ in range(100):
        assert rates.take("a") == pytest.approx(1 - now)
    now = 1.0
    assert rates.take("a") == 0
