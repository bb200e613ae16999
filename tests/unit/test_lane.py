"""`lane.py`: bulk steps work when nobody else wants the core."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import lane
import pytest
import repository

JOIN = """
import os, sys, threading
sys.path.append(sys.argv[1])
import lane
joined = threading.Event()
earlier = threading.Thread(target=joined.wait)
earlier.start()
tid = earlier.native_id
print(lane.join({"name": "m", "parameters": {"lane": {"string_value": sys.argv[2]}}}, None))
print(os.sched_getscheduler(tid))
joined.set()
later = threading.Thread(target=lambda: print(os.sched_getscheduler(0)))
later.start()
later.join()
print(os.sched_getscheduler(0))
"""


def joined(name: str) -> list[str]:
    """What a process of its own says: its lane, and the policies of an earlier, a later and the calling thread."""
    code = str(repository.MODEL_REPOSITORY / "nudenet_preprocess" / "1")
    command = [sys.executable, "-c", JOIN, code, name]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_bulk_steps_back_with_what_it_starts_but_not_with_what_was_there():
    here = str(os.sched_getscheduler(0))
    assert joined("bulk") == ["bulk", here, str(os.SCHED_IDLE), str(os.SCHED_IDLE)]
    assert joined("live") == ["live", here, here, here]


def test_who_does_not_say_is_live():
    assert lane.join({"name": "m", "parameters": {}}, None) == lane.LIVE


def test_another_lane_is_refused():
    with pytest.raises(ValueError, match="lane must be live or bulk, got 'fast'"):
        lane.join({"name": "m", "parameters": {"lane": {"string_value": "fast"}}}, None)


def test_where_the_system_forbids_it_the_step_works_and_warns(monkeypatch):
    def forbidden(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", forbidden)
    warnings = []
    triton = SimpleNamespace(Logger=SimpleNamespace(log_warn=warnings.append))
    assert lane.join({"name": "m", "parameters": {"lane": {"string_value": "bulk"}}}, triton) == lane.BULK
    assert warnings == ["m cannot step back behind live traffic: Operation not permitted"]
