"""`mps.py`: started for us alone, stopped again, and recognised only while it lives. The daemon is a script here."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from nudenet_tools.server import mps, tuning

DAEMON = """#!/bin/sh
echo "$CUDA_MPS_PIPE_DIRECTORY $@ $(cat)" >>{log}
exit {status}
"""


@pytest.fixture
def daemon(tmp_path, monkeypatch):
    """Puts a control program on PATH that logs its calls; returns a function that sets its status."""

    def install(status=0):
        program = tmp_path / mps.CONTROL
        program.write_text(DAEMON.format(log=tmp_path / "log", status=status))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return tmp_path / "log"

    return install


def test_started_with_pipes_of_its_own_and_stopped(daemon, monkeypatch):
    log = daemon()
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", "/elsewhere")
    monkeypatch.delenv("CUDA_MPS_LOG_DIRECTORY", raising=False)
    with mps.running():
        folder = os.environ["CUDA_MPS_PIPE_DIRECTORY"]
        assert os.path.isdir(folder)  # noqa: PTH112
    assert log.read_text().split("\n") == [f"{folder} -d ", f"{folder}  quit", ""]
    assert os.environ["CUDA_MPS_PIPE_DIRECTORY"] == "/elsewhere"
    assert "CUDA_MPS_LOG_DIRECTORY" not in os.environ


def test_stopped_after_an_error_too(daemon):
    log = daemon()
    with pytest.raises(KeyError), mps.running():
        raise KeyError
    assert log.read_text().endswith("quit\n")


def test_a_daemon_that_does_not_start_is_an_error(daemon):
    daemon(status=1)
    with pytest.raises(mps.MpsError, match="-d"), mps.running():
        pass


def test_a_missing_daemon_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(mps.MpsError, match="comes with NVIDIA's driver"), mps.running():
        pass


def test_running_only_while_the_daemon_lives(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    assert not mps.is_running()
    set_name = "ctypes.CDLL(None).prctl(15, b'nvidia-cuda-mps-control')"
    code = f"import ctypes, time; {set_name}; print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        (tmp_path / f"{mps.CONTROL}.pid").write_text(str(process.pid))
        assert mps.is_running()
        process.kill()
    assert not mps.is_running()
    (tmp_path / f"{mps.CONTROL}.pid").write_text(str(os.getpid()))  # the id came again
    assert not mps.is_running()


def test_shared_gpus_get_more_processes(monkeypatch):
    monkeypatch.setattr(mps, "is_running", lambda: True)
    shared = tuning.for_config("cuda", decoder="nvjpeg").instances
    monkeypatch.setattr(mps, "is_running", lambda: False)
    alone = tuning.for_config("cuda", decoder="nvjpeg").instances
    assert all(shared[model] > alone[model] for model in ("nudenet_preprocess", "nudenet_trt"))
