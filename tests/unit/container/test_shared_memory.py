"""What a run leaves in /dev/shm is removed by the next one, and what a living run uses is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from container import shared_memory
from container.healthcheck import process_state
from container.shared_memory import Region, remove_leftovers

RUN = """
import sys, time
from pathlib import Path
from container.shared_memory import Region
region = Region(Path(sys.argv[1]))
(Path(sys.argv[1]) / f"{region.prefix}region").write_bytes(bytes(1 << 20))
print(region.prefix, flush=True)
time.sleep(60)
"""


@pytest.fixture
def run(tmp_path: Path):
    """Starts another run of the server; returns its process and the prefix of what it keeps."""
    started = []

    def start() -> tuple[subprocess.Popen, str]:
        environment = {"PYTHONPATH": str(Path(shared_memory.__file__).parents[1])}
        command = [sys.executable, "-c", RUN, str(tmp_path)]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_living_run_is_left_alone_and_a_killed_one_is_cleaned_up(run, tmp_path: Path) -> None:
    living, kept = run()
    killed, gone = run()
    (tmp_path / "somebody-elses").write_bytes(b"1")
    assert remove_leftovers(tmp_path) == 0
    killed.kill()
    killed.wait()
    assert remove_leftovers(tmp_path) >= 1 << 20
    assert names(tmp_path) == {f"{kept}.owner", f"{kept}region", "somebody-elses"}
    assert living.poll() is None and not any(gone in name for name in names(tmp_path))


def test_the_lock_lives_as_long_as_a_process_that_inherited_it(tmp_path: Path) -> None:
    region = Region(tmp_path)
    (tmp_path / f"{region.prefix}region").write_bytes(b"1")
    server = subprocess.Popen(["sleep", "60"], pass_fds=(region.lock,))
    os.close(region.lock)  # as if the process that started the server were killed
    region.lock = -1
    try:
        remove_leftovers(tmp_path)
        assert len(names(tmp_path)) == 2
    finally:
        server.kill()
        server.wait()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == set()


def test_a_run_removes_its_own(tmp_path: Path) -> None:
    with Region(tmp_path) as region:
        (tmp_path / f"{region.prefix}region").write_bytes(bytes(8192))
        assert region.bytes() >= 8192
    assert names(tmp_path) == set()
    region.remove()


def test_files_of_steps_go_with_their_server(tmp_path: Path) -> None:
    alive = f"nudenet_heartbeat_{os.getpid()}_{process_state(os.getpid())[1]}_1"
    zombie = subprocess.Popen(["true"])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    of_zombie = f"nudenet_heartbeat_{zombie.pid}_{process_state(zombie.pid)[1]}_1"
    for name in (alive, of_zombie, f"nudenet_heartbeat_{os.getpid()}_1_1", "nudenet_inflight_4194305_77_all"):
        (tmp_path / name).write_bytes(b"1")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == {alive}
    zombie.wait()
