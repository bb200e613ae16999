"""Commands that start a server start it as `make serve` does, and say in one line why they cannot."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

import demo
import perf
import serve
import tune
import ui
from container import check_plan, supervisor
from nudenet_tools import ROOT
from nudenet_tools.server import prepare, process, tuning

STARTERS = {"demo": demo.demo, "serve": serve.serve, "perf": perf.perf, "ui": ui.ui}


class Started(Exception):
    """In place of a server that starts: its options."""

    def __init__(self, options: process.Options, *_: object) -> None:
        super().__init__()
        self.options = options


@pytest.fixture
def run(monkeypatch):
    """Runs a command in this process, on ports that nobody listens on."""
    ports = process.Ports.free()
    environment = {"HTTP_PORT": str(ports.http), "GRPC_PORT": str(ports.grpc), "UI_PORT": "0"}
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def call(command):
        app = typer.Typer()
        app.command()(command)
        return CliRunner().invoke(app, [], env=environment)

    return call


@pytest.mark.parametrize("name", STARTERS)
def test_the_server_has_the_tuning_of_this_machine(name, run, monkeypatch):
    def start(options, *_):
        raise Started(options)

    monkeypatch.setattr(prepare, "ensure_onnx", lambda: None)
    monkeypatch.setattr(process, "Server", start)
    monkeypatch.setattr(supervisor, "Supervisor", start)
    started = run(STARTERS[name]).exception
    assert isinstance(started, Started), started
    assert started.options.config_name == "cpu"
    assert started.options.tuning == tuning.for_cpu(tuning.cores())


@pytest.mark.parametrize("name", ["serve", "perf", "ui", "tune"])
def test_a_plan_that_does_not_fit_is_an_error_line(name, run, tmp_path, monkeypatch):
    (tmp_path / "tensorrt").mkdir()
    plan = tmp_path / "model.plan"
    plan.write_bytes(b"a plan, without the passport that says what it was built for")
    installation = process.Installation(tmp_path / "tritonserver", tmp_path, (), None)
    monkeypatch.setattr(prepare, "find_installation", lambda: installation)
    monkeypatch.setattr(prepare, "PLAN", plan)
    monkeypatch.setattr(check_plan, "library_version", lambda: "11.1.0.106")
    monkeypatch.setattr(check_plan, "gpu_capability", lambda: "9.0")
    result = run({**STARTERS, "tune": tune.main}[name])
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    assert f"{name}: " in result.output
    assert "make plan" in result.output


@pytest.mark.parametrize("name", ["chaos", "mutants"])
def test_what_make_starts_finds_its_modules(name):
    """As the Makefile says it, without installing what the target needs besides."""
    makefile = (ROOT / "Makefile").read_text()
    (line,) = re.findall(rf"^\t(PYTHONPATH=.* -m {name} )\$\(ARGS\)$", makefile, re.MULTILINE)
    command = line.replace("$(PY)", sys.executable) + "--help"
    result = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "usage" in result.stdout.lower()
