"""`gate.py`: decoding waits for the detector, but never for requests that got lost."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import gate
import pytest


class Gauge:
    """Triton's gauge, shared by all instances."""

    GAUGE = "gauge"

    def __init__(self, **_):
        self.total = 0

    def Metric(self, labels):
        return self

    def increment(self, value):
        self.total += value

    def value(self):
        return self.total


@pytest.fixture
def gauge():
    return Gauge()


@pytest.fixture
def triton(gauge):
    family = lambda **_: gauge  # noqa: E731 (a class in Triton)
    family.GAUGE = "gauge"
    return SimpleNamespace(MetricFamily=family)


def test_a_full_gate_opens_when_requests_leave(triton, gauge):
    decoder, end = gate.Gate(triton, limit=4), gate.Gate(triton)
    decoder.enter(4)
    waiting = threading.Thread(target=decoder.enter, args=(2,))
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    assert gauge.total == 4
    end.leave(1)
    waiting.join(5)
    assert not waiting.is_alive()
    assert gauge.total == 5


def test_lost_requests_are_forgotten_when_nothing_moves(triton, gauge, monkeypatch):
    monkeypatch.setattr(gate, "STALE_SECONDS", 0.05)
    decoder = gate.Gate(triton, limit=4)
    decoder.enter(8)
    decoder.enter(1)  # would wait for ever
    assert gauge.total == 1
    decoder.leave(9)  # they were only slow
    decoder.enter(2)
    assert gauge.total == 2


def test_without_a_limit_nothing_waits_but_is_counted(triton, gauge):
    decoder = gate.Gate(triton)
    for _ in range(100):
        decoder.enter(8)
    assert gauge.total == 800


def test_a_server_without_metrics_is_served_too():
    decoder = gate.Gate(SimpleNamespace(), limit=1)
    decoder.enter(5)
    decoder.enter(5)
    decoder.leave(10)
