"""`backpressure.py`: decoding waits for what is under way, but never for pictures that got lost."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from container import repository
from nudenet_steps.serving import backpressure, process_counts, shm_files
from nudenet_steps.serving.process_counts import ProcessCounts, SharedTable

MS = 10**6


class Clock:
    """Time that tests move on."""

    def __init__(self):
        self.now = 10**15

    def monotonic_ns(self):
        return self.now

    def sleep(self, seconds):
        self.now += int(seconds * 1e9)


class Gauge:
    """Triton's gauge."""

    def __init__(self):
        self.shown = []

    def Metric(self, labels):
        return self

    def set(self, value):
        self.shown.append(value)


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(backpressure, "time", clock)
    return clock


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


@pytest.fixture
def decoder(triton):
    return backpressure.Backpressure(triton, limit=4)


@pytest.fixture
def end(triton):
    """Postprocessing, another process."""
    return backpressure.Backpressure(triton)


def steady(decoder, end, clock, way_ms=20, pictures=50):
    """Pictures that come out after `way_ms`, one at a time."""
    for _ in range(pictures):
        decoded_at = decoder.enter(1)
        clock.now += way_ms * MS
        end.leave(decoded_at, 1)


def test_decoding_waits_until_pictures_have_left(decoder, end, clock, monkeypatch):
    first, second = decoder.enter(3), decoder.enter(1)
    naps = []

    def sleep(seconds):
        naps.append(seconds)
        clock.now += 5 * MS
        if len(naps) == 3:
            end.leave(second, 1)

    monkeypatch.setattr(clock, "sleep", sleep)
    decoder.wait()
    assert len(naps) == 3
    assert decoder.in_flight() == end.in_flight() == 3
    end.leave(first, 3)
    assert decoder.in_flight() == 0


@pytest.mark.parametrize(("way_ms", "most"), [(20, 4), (120, 4), (180, 3), (400, 2), (900, 1)])
def test_fewer_may_be_under_way_where_they_take_long(decoder, end, clock, way_ms, most):
    steady(decoder, end, clock, way_ms)
    under_way = 0
    while not decoder.is_full():
        decoder.enter(1)
        under_way += 1
    assert under_way == most


def test_what_others_have_overtaken_by_far_is_lost(decoder, end, clock):
    steady(decoder, end, clock)
    decoder.enter(3)  # their client has gone
    steady(decoder, end, clock, pictures=1)
    assert decoder.in_flight() == 3  # still on its way, as far as anybody knows
    steady(decoder, end, clock, pictures=6)
    assert decoder.in_flight() == 0


def test_pictures_that_fail_at_once_overtake_nobody(decoder, end, clock):
    steady(decoder, end, clock, way_ms=60)
    decoder.enter(3)
    clock.now += 150 * MS
    decoder.withdraw(decoder.enter(2), 2)
    assert decoder.in_flight() == 3


def test_what_is_slow_is_not_lost_while_nothing_overtakes_it(decoder, end, clock):
    steady(decoder, end, clock, way_ms=50)
    decoded_at = decoder.enter(4)
    clock.now += 150 * MS
    assert decoder.in_flight() == 4
    end.leave(decoded_at, 4)
    assert decoder.in_flight() == 0


def test_decoding_goes_on_where_nothing_comes_out(decoder, end, clock):
    steady(decoder, end, clock)
    for _ in range(8):
        begin = clock.now
        decoder.enter(8)
        decoder.wait()  # all clients have gone
        assert 0.1 < (clock.now - begin) / 1e9 < 0.3


def test_what_was_taken_for_lost_does_no_harm_when_it_comes(decoder, end, clock):
    decoded_at = decoder.enter(8)
    decoder.wait()
    assert decoder.in_flight() == 0
    end.leave(decoded_at, 8)
    assert decoder.in_flight() == 0
    decoder.enter(2)
    assert decoder.in_flight() == 2


def test_a_slow_machine_has_more_patience(decoder, end, clock):
    steady(decoder, end, clock, way_ms=800)
    decoder.enter(2)
    clock.now += 2000 * MS
    assert decoder.in_flight() == 2


def test_what_is_older_than_all_slots_is_forgotten(decoder, end, clock):
    steady(decoder, end, clock, way_ms=2000)
    decoder.enter(2)
    clock.now += 4200 * MS
    assert decoder.in_flight() == 2
    clock.now += 200 * MS
    assert decoder.in_flight() == 0


def test_one_slot_gives_no_credit_to_another(decoder, end, clock):
    decoder.enter(3)
    clock.now += 40 * MS
    end.leave(clock.now, 9)  # of a client that calls postprocessing itself
    assert decoder.in_flight() == 3


def test_cells_are_used_again_and_again(decoder, end, clock):
    for _ in range(40):
        decoded_at = decoder.enter(2)
        assert decoder.in_flight() == 2
        clock.now += 150 * MS
        end.leave(decoded_at, 2)
        assert decoder.in_flight() == 0


@pytest.mark.parametrize("shift_ms", [-10_000, 10_000])
def test_times_that_cannot_be_are_ignored(decoder, end, clock, shift_ms):
    decoder.enter(3)
    end.leave(clock.now + shift_ms * MS, 3)
    assert decoder.in_flight() == 3


def test_the_gauge_follows_once_a_second_and_when_nothing_is_left(decoder, end, gauge, clock):
    first, second = decoder.enter(3), decoder.enter(2)
    decoder.publish()
    end.leave(first, 3)
    decoder.publish()  # not yet due
    assert gauge.shown == [5]
    end.leave(second, 2)
    decoder.publish()
    assert gauge.shown == [5, 0]
    clock.now += 1100 * MS
    decoder.enter(4)
    decoder.publish()
    assert gauge.shown == [5, 0, 4]


def test_processes_count_together(shared_memory, decoder, clock):
    code = (
        "import sys, time; from pathlib import Path; from nudenet_steps.serving import backpressure, shm_files;"
        "shm_files.SHARED_MEMORY = Path(sys.argv[1]);"
        "backpressure.time.monotonic_ns = lambda: int(sys.argv[2]);"
        "backpressure.Backpressure(None).enter(1)"
    )
    steps = str(repository.MODEL_REPOSITORY / "nudenet" / "1")
    server = os.getppid()
    command = f"import os; os.getppid = lambda: {server}; {code}"
    for _ in range(3):
        arguments = [sys.executable, "-c", command, str(shared_memory), str(clock.now)]
        subprocess.run(arguments, env={"PYTHONPATH": steps}, check=True)
    assert decoder.in_flight() == 3
    rows = SharedTable("inflight", backpressure._SLOTS).rows()
    assert len(rows) == 2  # the fixture's, and one that the three processes had in turn, and this one now


def test_what_an_ended_process_had_in_hand_is_forgotten():
    counts = ProcessCounts("detectors")
    counts.add(5)
    ended = subprocess.Popen(["true"])
    ended.wait()
    table = SharedTable("detectors", 1)
    table._rows[0][0] = ended.pid
    assert ProcessCounts("detectors").total() == 0
    two = [ProcessCounts("detectors") for _ in range(2)]
    two[1].add(8)
    for row in list(table._taken()):
        row[0] = ended.pid
    assert ProcessCounts("detectors").total() == 0


def test_a_full_table_says_so(monkeypatch):
    monkeypatch.setattr(process_counts, "_ROWS", 2)
    kept = [ProcessCounts("few") for _ in range(2)]
    with pytest.raises(RuntimeError, match="all 2 rows are taken"):
        ProcessCounts("few")
    assert [one.total() for one in kept] == [0, 0]


def test_counts_of_processes_are_added_up_and_end_with_them():
    one, other = ProcessCounts("detectors"), ProcessCounts("detectors")
    threads = [threading.Thread(target=count.add, args=(5,)) for count in (one, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert one.total() == 10
    other.close()
    assert one.total() == 5
