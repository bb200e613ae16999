"""`gate.py`: decoding waits for the detector, but never for requests that got lost."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import gate
import pytest
import repository
import server_files


class Gauge:
    """Triton's gauge."""

    def __init__(self, **_):
        self.shown = []

    def Metric(self, labels):
        return self

    def set(self, value):
        self.shown.append(value)


@pytest.fixture
def gauge():
    return Gauge()


@pytest.fixture
def triton(gauge):
    family = lambda **_: gauge  # noqa: E731 (a class in Triton)
    family.GAUGE = "gauge"
    return SimpleNamespace(MetricFamily=family)


@pytest.fixture(autouse=True)
def shared_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(server_files, "SHARED_MEMORY", tmp_path)
    return tmp_path


def test_lanes_do_not_see_each_other(triton):
    live, bulk = gate.Gate(triton), gate.Gate(triton, lane="bulk")
    bulk.enter(5)
    assert (live.in_flight(), bulk.in_flight()) == (0, 5)


def test_a_full_gate_opens_when_requests_leave(triton):
    decoder, end = gate.Gate(triton, limit=4), gate.Gate(triton)
    decoder.enter(4)
    waiting = threading.Thread(target=decoder.wait)
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    end.leave(1)
    waiting.join(5)
    assert not waiting.is_alive()
    assert decoder.in_flight() == end.in_flight() == 3


def test_lost_requests_are_forgotten_when_nothing_moves(triton, monkeypatch):
    monkeypatch.setattr(gate, "STALE_SECONDS", 0.05)
    decoder = gate.Gate(triton, limit=4)
    decoder.enter(8)
    decoder.wait()  # would be for ever
    assert decoder.in_flight() == 0
    decoder.leave(8)  # they were only slow
    decoder.wait()
    decoder.enter(2)
    assert decoder.in_flight() == 2


def test_without_a_limit_nothing_waits_but_is_counted(triton):
    decoder = gate.Gate(triton)
    for _ in range(100):
        decoder.enter(8)
        decoder.wait()
    assert decoder.in_flight() == 800


def test_a_server_without_metrics_has_the_gate_too():
    decoder = gate.Gate(SimpleNamespace(), limit=1)
    decoder.enter(5)
    decoder.leave(3)
    assert decoder.in_flight() == 2


def test_the_gauge_follows_and_ends_at_zero(triton, gauge, monkeypatch):
    decoder, end = gate.Gate(triton), gate.Gate(triton)
    decoder.enter(3)
    end.leave(1)
    end.leave(2)
    assert gauge.shown[-1] == 0
    shown = len(gauge.shown)
    for _ in range(50):  # within a second: asking the server each time would cost more than the step
        decoder.enter(2)
        end.leave(1)
    assert len(gauge.shown) <= shown + 2
    monkeypatch.setattr(gate, "PUBLISH_SECONDS", 0)
    decoder = gate.Gate(triton)
    decoder.enter(1)
    assert gauge.shown[-1] == 51


COUNT = """
import sys, types
from pathlib import Path
import gate, server_files
server_files.SHARED_MEMORY = Path(sys.argv[1])
own = gate.Gate(types.SimpleNamespace(), server=int(sys.argv[2]))
for _ in range(2000):
    own.enter(3)
    own.leave(2)
"""


def test_processes_of_one_server_count_together_and_lose_nothing(shared_memory):
    step = repository.MODEL_REPOSITORY / "nudenet_preprocess" / "1"
    arguments = [sys.executable, "-c", COUNT, str(shared_memory), str(os.getpid())]
    processes = [subprocess.Popen(arguments, env={"PYTHONPATH": str(step)}) for _ in range(3)]
    here = gate.Gate(SimpleNamespace(), server=os.getpid())
    assert [process.wait(30) for process in processes] == [0, 0, 0]
    assert here.in_flight() == 3 * 2000


def test_servers_do_not_see_each_other_and_dead_ones_leave_nothing(shared_memory):
    other = subprocess.Popen(["sleep", "60"])
    try:
        gate.Gate(SimpleNamespace(), server=other.pid).enter(7)
        assert gate.Gate(SimpleNamespace()).in_flight() == 0
        assert len(list(shared_memory.iterdir())) == 2
    finally:
        other.kill()
        other.wait()
    gate.Gate(SimpleNamespace())
    assert len(list(shared_memory.iterdir())) == 1


def test_waiting_does_not_keep_a_core_busy(triton):
    decoder = gate.Gate(triton, limit=1)
    decoder.enter(1)
    waiting = threading.Thread(target=decoder.wait)
    begin = time.process_time()
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive()
    assert time.process_time() - begin < 0.2
    decoder.leave(1)
    waiting.join(5)
