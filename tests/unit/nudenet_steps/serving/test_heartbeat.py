"""What a step notes of itself, and what the health check reads out of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from container import healthcheck, repository
from nudenet_steps.serving import heartbeat, shm_files

STEP = """
import sys, time
from pathlib import Path
from nudenet_steps.serving import heartbeat, shm_files
shm_files.SHARED_MEMORY = Path(sys.argv[1])
own = heartbeat.Heartbeat("nudenet_trt_0_0")
if sys.argv[2] == "works":
    own.__enter__()
print("noted", flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def shared_memory(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(shm_files, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(healthcheck, "_SHARED_MEMORY", tmp_path)
    return tmp_path


@pytest.fixture
def step(shared_memory) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts a process that is a step of a server, which is this process."""
    code, started = str(repository.MODEL_REPOSITORY / "nudenet" / "1"), []

    def start(state: str = "idle") -> subprocess.Popen:
        arguments = [sys.executable, "-c", STEP, str(shared_memory), state]
        process = subprocess.Popen(arguments, env={"PYTHONPATH": code}, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "noted\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def start_as_stub(shared_memory: Path, server: int) -> subprocess.CompletedProcess:
    """A Python model as `server` would start it, whose parent is this process."""
    code = STEP.replace("time.sleep(60)", "")
    command = ["bash", "-c", 'exec -a triton_python_backend_stub "$@"', "bash", sys.executable]
    return subprocess.run(
        [*command, "-c", code, str(shared_memory), "idle", str(server)],
        env={**os.environ, "PYTHONPATH": str(repository.MODEL_REPOSITORY / "nudenet" / "1")},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_model_belongs_to_the_server_that_started_it(shared_memory):
    assert start_as_stub(shared_memory, os.getpid()).stdout == "noted\n"
    assert len(list(shared_memory.glob(f"nudenet_heartbeat_{os.getpid()}_*"))) == 1


def test_a_model_whose_server_ended_during_the_start_notes_nothing(shared_memory):
    """Else it would leave a file in the name of process 1, which adopts it, for as long as the machine runs."""
    orphan = start_as_stub(shared_memory, os.getppid())
    assert orphan.returncode == 1
    assert "ProcessLookupError: the server of this process has ended" in orphan.stderr
    assert list(shared_memory.iterdir()) == []


def later(monkeypatch, seconds: float) -> None:
    """The health check looks so many seconds from now."""
    clock = SimpleNamespace(monotonic_ns=lambda: time.monotonic_ns() + int(seconds * 1e9))
    monkeypatch.setattr(healthcheck, "time", clock)


def test_idle_is_well_however_long(step, monkeypatch):
    step()
    later(monkeypatch, 3600)
    assert healthcheck.ailing() == {}


def test_work_that_does_not_end(step, monkeypatch):
    process = step("works")
    later(monkeypatch, 25)
    assert healthcheck.ailing() == {}
    later(monkeypatch, 35)
    name = f"nudenet_trt_0_0 (process {process.pid})"
    assert healthcheck.ailing(os.getpid()) == {process.pid: f"{name} hangs: 35 s at work on one batch"}


def test_stopped_and_dead(step):
    process, other = step(), step()
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    assert healthcheck.ailing() == {process.pid: f"nudenet_trt_0_0 (process {process.pid}) is stopped"}
    for dead in (process, other):
        dead.kill()
        os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)  # a zombie: nobody has collected it
    expected = {dead.pid: f"nudenet_trt_0_0 (process {dead.pid}) died" for dead in (process, other)}
    assert healthcheck.ailing() == expected
    process.wait()
    other.wait()
    assert healthcheck.ailing() == expected


def test_work_is_noted_and_over_at_its_end(shared_memory, monkeypatch):
    own = heartbeat.Heartbeat("nudenet_trt_0_0", server=os.getpid())
    later(monkeypatch, 40)
    with pytest.raises(KeyError), own:
        assert list(healthcheck.ailing()) == [os.getpid()]
        raise KeyError
    assert healthcheck.ailing() == {}
    own.close()
    own.close()
    assert list(shared_memory.iterdir()) == []


def test_other_servers_are_left_out_and_ended_ones_forgotten(step, shared_memory):
    process = step()
    process.kill()
    process.wait()
    (file,) = shared_memory.iterdir()
    assert list(healthcheck.ailing(os.getpid())) == [process.pid]
    assert healthcheck.ailing(1) == {}
    _, kind, server, started, pid = file.name.split("_")
    file.rename(shared_memory / f"nudenet_{kind}_{server}_{int(started) + 1}_{pid}")  # the number has come again
    assert healthcheck.ailing() == {}
    zombie = subprocess.Popen(["true"])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    of_zombie = shared_memory / f"nudenet_heartbeat_{zombie.pid}_{healthcheck.process_state(zombie.pid)[1]}_{pid}"
    of_zombie.write_bytes(bytes(32))
    assert healthcheck.ailing() == {}  # nobody collects it, as in a container without an init
    (shared_memory / "nudenet_heartbeat_4194305_1_2").touch()  # no system counts so far
    heartbeat.Heartbeat("nudenet_trt_0_0", server=os.getpid())
    assert not (shared_memory / "nudenet_heartbeat_4194305_1_2").exists()
    assert not of_zombie.exists()
    zombie.wait()
