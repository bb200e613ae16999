"""`tools/serve.py` as a person runs it, and what it says when it cannot."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from container import running_processes
from container.check_plan import PlanError
from container.supervisor import Supervisor
from nudenet_tools import MODEL_REPOSITORY, ROOT
from nudenet_tools.server import libpython, prepare
from nudenet_tools.server.prepare import choose_config
from nudenet_tools.server.process import NO_GPU_NOISE, SHM, Installation, Options, Ports, Server, ServerError

SERVE = [sys.executable, str(ROOT / "tools" / "serve.py")]


def environment(ports: Ports) -> dict[str, str]:
    return os.environ | {
        "HTTP_PORT": str(ports.http),
        "GRPC_PORT": str(ports.grpc),
        "METRICS_PORT": str(ports.metrics),
        "COLUMNS": "200",
    }


def running_below(folder: Path) -> list[str]:
    """Command lines of processes that were started from scratch files in `folder`."""
    return [arguments for arguments in running_processes.command_lines().values() if str(folder) in arguments]


@pytest.fixture
def start() -> Iterator[Callable[[Ports, Path], tuple[subprocess.Popen, str]]]:
    """Starts serve.py; returns it once it is ready, with what it has said until then. Ends it with the test."""
    started: list[subprocess.Popen] = []

    def call(ports: Ports, scratch: Path) -> tuple[subprocess.Popen, str]:
        process = subprocess.Popen(
            SERVE, env=environment(ports) | {"TMPDIR": str(scratch)}, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process, _read_until_ready(process)

    yield call
    for process in started:
        process.kill()  # its server goes with it
        process.wait()


def _read_until_ready(process: subprocess.Popen) -> str:
    said = ""
    for line in process.stderr:
        said += line
        if "Ctrl-C stops it" in line:
            break
    return said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serves_until_told_to_stop_and_leaves_nothing(start, onnx_path, tmp_path, number):
    ports = Ports.free()
    before = set(SHM.iterdir())
    process, said = start(ports, tmp_path)
    assert f"http://127.0.0.1:{ports.http}" in said
    assert f"127.0.0.1:{ports.grpc}" in said
    assert f"http://127.0.0.1:{ports.metrics}/metrics" in said
    assert "OpenVINO" in said
    assert "insufficient" not in said  # no driver complaints on a machine without a GPU

    assert len(running_below(tmp_path)) >= 4  # the server and its stubs
    process.send_signal(number)
    assert process.wait(30) == 0
    assert running_below(tmp_path) == []
    assert not [region for region in set(SHM.iterdir()) - before if "nudenet" in region.name and not region.is_dir()]
    assert list(tmp_path.iterdir()) == []


def test_a_killed_launcher_takes_its_server_along(start, onnx_path, tmp_path):
    process, _ = start(Ports.free(), tmp_path)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if not running_below(tmp_path):
            return
        time.sleep(0.2)
    pytest.fail(f"still running: {running_below(tmp_path)}")


def test_a_taken_port_is_named_with_its_variable(onnx_path):
    ports = Ports.free()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports.grpc))
        taken.listen()
        result = subprocess.run(SERVE, env=environment(ports), capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert f"port {ports.grpc} cannot be used" in result.stderr
    assert "set GRPC_PORT to a free one" in result.stderr


def test_an_unknown_configuration_lists_the_known_ones(onnx_path):
    result = subprocess.run(
        [*SERVE, "--config-name", "gpu"], env=environment(Ports.free()), capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 1
    assert "no configuration 'gpu'; there are:" in result.stderr


def test_a_precision_that_the_configuration_has_not_is_refused(onnx_path):
    result = subprocess.run(
        [*SERVE, "--config-name", "cpu", "--precision", "FP8"],
        env=environment(Ports.free()),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1
    assert "precision must be one of auto, FP32, BF16, INT8, got 'FP8'" in result.stderr


def test_a_plan_without_passport_is_refused_before_the_start(tmp_path, monkeypatch):
    plan = tmp_path / "model.plan"
    plan.write_bytes(b"a plan")
    monkeypatch.setattr("container.check_plan.library_version", lambda: "11.1.0.106")
    monkeypatch.setattr("container.check_plan.gpu_capability", lambda: "9.0")
    installation = Installation(tmp_path / "tritonserver", tmp_path, (), None)
    assert choose_config(installation, plan) == "cpu"  # no TensorRT backend
    (tmp_path / "tensorrt").mkdir()
    with pytest.raises(PlanError, match="make plan"):
        choose_config(installation, plan)


@pytest.mark.parametrize(("name", "file"), [("live", "model.live.plan"), ("rtx", "model.rtx.engine")])
def test_a_configuration_of_an_engine_that_was_not_built_is_refused_before_the_start(name, file, tmp_path, monkeypatch):
    models = tmp_path / "models"
    shutil.copytree(MODEL_REPOSITORY, models, ignore=shutil.ignore_patterns("*.onnx", "*.plan", "*.engine"))
    monkeypatch.setattr(prepare, "MODEL_REPOSITORY", models)
    monkeypatch.setattr(prepare, "ensure_onnx", lambda: pytest.fail("such an engine needs no graph"))
    with pytest.raises(ServerError, match=rf"{file}.*build"):
        prepare.prepare(name)


def test_an_engine_for_rtx_is_taken_where_its_library_and_a_gpu_are(tmp_path, monkeypatch):
    engine = tmp_path / "model.rtx.engine"
    engine.write_bytes(b"an engine")
    installation = Installation(tmp_path / "tritonserver", tmp_path, (), None)
    monkeypatch.setattr("container.check_plan.rtx_library_version", lambda: "1.7.1.116")
    monkeypatch.setattr("container.check_plan.gpu_capability", lambda: None)
    assert choose_config(installation, tmp_path / "model.plan", engine) == "cpu"
    monkeypatch.setattr("container.check_plan.gpu_capability", lambda: "8.9")
    monkeypatch.setattr("container.check_plan.check", lambda *arguments: None)
    assert choose_config(installation, tmp_path / "model.plan", engine) == "rtx"


def test_too_little_shared_memory_is_said_before_the_start(onnx_path, monkeypatch):
    full = os.statvfs_result((4096, 4096, 16384, 20, 20, *tuple(os.statvfs("/dev/shm"))[5:]))
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    with pytest.raises(ServerError, match=r"/dev/shm has 0 MB free, the Python instances need 192 MB: .*--shm-size=1g"):
        Server(Options(ports=Ports.free())).start()


def test_a_missing_libpython_names_the_debian_package(onnx_path, monkeypatch):
    monkeypatch.setattr(libpython, "directory", lambda: None)
    version = "{}.{}".format(*sys.version_info[:2])
    with pytest.raises(ServerError, match=f"apt-get install libpython{version}"):
        Server(Options(ports=Ports.free())).start()


def test_models_without_the_code_of_the_steps_beside_them_say_what_is_missing(onnx_path, tmp_path):
    """As when one model is mounted alone, or Triton copies the models one at a time out of an object store."""
    models = tmp_path / "models"
    shutil.copytree(MODEL_REPOSITORY, models, ignore=shutil.ignore_patterns("nudenet_steps", "*.onnx"))
    with pytest.raises(ServerError) as caught:
        Server(Options(ports=Ports.free(), model_repository=models)).start()
    for model in ("nudenet_preprocess", "nudenet_trt", "nudenet_postprocess"):
        assert re.search(rf"{model}.*{models}/nudenet/1/nudenet_steps is missing: serve the whole", str(caught.value))


def test_the_plan_configuration_lacks_only_the_tensorrt_backend():
    """Triton accepts everything in config.pbtxt; on this installation only the backend library is missing."""
    server = Server(Options(ports=Ports.free(), config_name=""))
    with pytest.raises(ServerError, match="no TensorRT backend; use --config-name cpu"):
        server.start()
    complaints = [
        line
        for line in server.log
        if line[:1] in ("E", "F") and not any(noise in line for noise in NO_GPU_NOISE) and line.split(":")[0] != "Error"
    ]
    assert complaints
    assert all("unable to find backend library for backend 'tensorrt'" in line for line in complaints)


def test_a_stop_during_the_start_ends_it(onnx_path):
    stopped, server = threading.Event(), Server(Options(ports=Ports.free()))
    stopped.set()
    ready = []
    assert Supervisor(server, print).run_once(stopped, ready.append) is None
    Supervisor(server, print).run(stopped, ready.append)
    assert not ready
    assert server.process is None


def test_a_server_that_dies_early_says_why(onnx_path):
    server = Server(Options(ports=Ports.free(), arguments=("--no-such-option",)))
    with pytest.raises(ServerError, match="no-such-option"):
        server.start()
