"""`backpressure.py`: decoding waits for the detector, but never for requests that got lost."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from nudenet_steps.serving import backpressure, shm_files
from nudenet_steps.serving.process_counts import ProcessCounts
from nudenet_tools.server import repository


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
    monkeypatch.setattr(shm_files, "SHARED_MEMORY", tmp_path)
    return tmp_path


def test_a_full_gate_opens_when_requests_leave(triton):
    decoder, end = backpressure.Backpressure(triton, limit=4), backpressure.Backpressure(triton)
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
    monkeypatch.setattr(backpressure, "STALE_SECONDS", 0.05)
    decoder = backpressure.Backpressure(triton, limit=4)
    decoder.enter(8)
    decoder.wait()  # would be for ever
    assert decoder.in_flight() == 0
    decoder.leave(8)  # they were only slow
    decoder.wait()
    decoder.enter(2)
    assert decoder.in_flight() == 2


@pytest.fixture
def detectors(triton):
    """Two, which count what they have in hand."""
    return [ProcessCounts("detectors") for _ in range(2)]


def decode(decoder, pictures):
    decoder.enter(pictures)
    decoder.hand_over(pictures)


def one_picture(decoder, detector, meanwhile=lambda: None):
    """One picture's way from beginning to end; `meanwhile` is called before it is at the detector and while it is."""
    decode(decoder, 1)
    meanwhile()
    detector.add(1)
    meanwhile()
    time.sleep(0.005)
    detector.add(-1)
    decoder.take(1)
    decoder.leave(1)


def wait_in_vain(decoder, seconds):
    """Whether `decoder` still waits after `seconds`; then it is let through."""
    waiting = threading.Thread(target=decoder.wait)
    waiting.start()
    waiting.join(seconds)
    still = waiting.is_alive()
    decoder.limit = decoder.in_flight() + 1
    waiting.join(5)
    return still


def test_what_nobody_has_while_a_detector_is_idle_is_lost(triton, detectors):
    decoder = backpressure.Backpressure(triton, limit=24)
    decode(decoder, 24)
    detectors[0].add(4)
    decoder.wait()  # much less than STALE_SECONDS, which is for what nobody can tell
    assert decoder.in_flight() == 4


@pytest.mark.parametrize("at_work", [(8, 8), (24, 0)])
def test_what_waits_for_busy_detectors_or_is_in_hand_is_not_lost(triton, detectors, at_work):
    decoder = backpressure.Backpressure(triton, limit=24)
    decode(decoder, 24)
    for detector, pictures in zip(detectors, at_work, strict=True):
        detector.add(pictures)
    assert wait_in_vain(decoder, 0.3)


def test_what_is_being_decoded_or_answered_is_not_lost(triton, detectors):
    decoder, other, end = (backpressure.Backpressure(triton, limit=4) for _ in range(3))
    other.enter(3)
    decode(decoder, 1)
    end.take(1)
    assert wait_in_vain(decoder, 0.3)


def test_what_is_on_its_way_at_one_look_and_arrived_at_the_next_is_not_lost(triton, detectors):
    decoder = backpressure.Backpressure(triton, limit=24)
    for _ in range(20):
        one_picture(decoder, detectors[1], meanwhile=lambda: decoder.enter(0))  # looks
        assert decoder.in_flight() == 0


def test_two_decoders_forget_what_is_lost_only_once(triton, detectors):
    decoders = [backpressure.Backpressure(triton, limit=24) for _ in range(2)]
    decoders[0].enter(30)
    decoders[0].hand_over(24)  # six stay in hand
    waiting = [threading.Thread(target=decoder.wait) for decoder in decoders]
    for thread in waiting:
        thread.start()
    for thread in waiting:
        thread.join(5)
    assert decoders[0].in_flight() == 6


def test_lost_pictures_are_found_at_low_load_too(triton, detectors):
    decoder = backpressure.Backpressure(triton, limit=24)
    decode(decoder, 10)
    for _ in range(20):
        one_picture(decoder, detectors[1])
    assert decoder.in_flight() == 0


def test_a_detector_that_was_unloaded_is_not_taken_for_an_idle_one(triton, detectors):
    decoder = backpressure.Backpressure(triton, limit=8)
    decode(decoder, 8)
    detectors[0].add(4)
    detectors[1].close()
    assert wait_in_vain(decoder, 0.3)


def test_without_a_limit_nothing_waits_but_is_counted(triton):
    decoder = backpressure.Backpressure(triton)
    for _ in range(100):
        decoder.enter(8)
        decoder.wait()
    assert decoder.in_flight() == 800


def test_a_server_without_metrics_has_the_gate_too():
    decoder = backpressure.Backpressure(SimpleNamespace(), limit=1)
    decoder.enter(5)
    decoder.leave(3)
    assert decoder.in_flight() == 2


def test_the_gauge_follows_and_ends_at_zero(triton, gauge, monkeypatch):
    decoder, end = backpressure.Backpressure(triton), backpressure.Backpressure(triton)
    decoder.enter(3)
    end.leave(1)
    end.leave(2)
    assert gauge.shown[-1] == 0
    shown = len(gauge.shown)
    for _ in range(50):  # within a second: asking the server each time would cost more than the step
        decoder.enter(2)
        end.leave(1)
    assert len(gauge.shown) <= shown + 2
    monkeypatch.setattr(backpressure, "PUBLISH_SECONDS", 0)
    decoder = backpressure.Backpressure(triton)
    decoder.enter(1)
    assert gauge.shown[-1] == 51


COUNT = """
import sys, types
from pathlib import Path
from nudenet_steps.serving import backpressure, shm_files
shm_files.SHARED_MEMORY = Path(sys.argv[1])
own = backpressure.Backpressure(types.SimpleNamespace(), server=int(sys.argv[2]))
for _ in range(2000):
    own.enter(3)
    own.leave(2)
"""


def test_processes_of_one_server_count_together_and_lose_nothing(shared_memory):
    step = repository.MODEL_REPOSITORY / "nudenet" / "1"
    arguments = [sys.executable, "-c", COUNT, str(shared_memory), str(os.getpid())]
    processes = [subprocess.Popen(arguments, env={"PYTHONPATH": str(step)}) for _ in range(3)]
    here = backpressure.Backpressure(SimpleNamespace(), server=os.getpid())
    assert [process.wait(30) for process in processes] == [0, 0, 0]
    assert here.in_flight() == 3 * 2000


def test_servers_do_not_see_each_other_and_dead_ones_leave_nothing(shared_memory):
    other = subprocess.Popen(["sleep", "60"])
    try:
        backpressure.Backpressure(SimpleNamespace(), server=other.pid).enter(7)
        assert backpressure.Backpressure(SimpleNamespace()).in_flight() == 0
        both = len(list(shared_memory.iterdir()))
    finally:
        other.kill()
        other.wait()
    backpressure.Backpressure(SimpleNamespace())
    assert len(list(shared_memory.iterdir())) == both / 2


def test_waiting_does_not_keep_a_core_busy(triton):
    decoder = backpressure.Backpressure(triton, limit=1)
    decoder.enter(1)
    waiting = threading.Thread(target=decoder.wait)
    begin = time.process_time()
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive()
    assert time.process_time() - begin < 0.2
    decoder.leave(1)
    waiting.join(5)
