"""tools/tune.py: a tiny sweep on the real server; what it writes is served."""

from __future__ import annotations

import shutil

import pytest
import typer
from typer.testing import CliRunner

import tune
from container import repository
from nudenet_tools.server.process import Options, Ports, Server, get_json

app = typer.Typer()
app.command()(tune.main)


@pytest.fixture
def models(onnx_path, tmp_path):
    """The user's repository, which this writes to."""
    target = tmp_path / "models"
    shutil.copytree(repository.MODEL_REPOSITORY, target, ignore=shutil.ignore_patterns("*.plan*", "__pycache__"))
    return target


def run(*arguments: object, status: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.output
    return " ".join(result.output.split())


def test_a_name_that_is_replaced_leaves_nothing_of_what_it_was(models):
    for config_name in ("cpu", "live", ""):
        written = tune.write_named("mine", config_name, repository.Tuning(), models, "measured")
        assert written == sorted(models.glob("*/configs/mine.pbtxt"), key=written.index)
        for model in repository.MODELS:
            was = repository.read_config(repository.config_path(model, config_name, models))
            assert repository.read_config(repository.config_path(model, "mine", models)) == was


def test_a_sweep_writes_a_configuration_that_is_served(models, monkeypatch):
    monkeypatch.setattr(tune.signal, "signal", lambda *_: None)
    monkeypatch.setattr(tune, "FINAL_ROUNDS", 0)
    # What this machine has now is in the sweep whatever is asked for; which is faster depends on the machine.
    monkeypatch.setattr(tune, "current", lambda *_: tune.Candidate(3, 1, 1, 0))
    options = ("--concurrency", 4, "--decoders", 3, "--detectors", 1, "--threads", 1, "--delays-us", 0, "--window", 0.9)
    output = run("--models", models, "--config-name", "cpu", "--name", "mine", "--budget-ms", 30_000, *options)
    assert "decoders 3 " in output
    text = (models / "nudenet_trt" / "configs" / "mine.pbtxt").read_text()
    assert text.startswith("# Measured 20")
    assert "pictures/s" in text.splitlines()[0]
    with Server(Options(ports=Ports.free(), config_name="mine", model_repository=models)) as server:
        served = {model: get_json(server, f"/v2/models/{model}/config") for model in repository.MODELS}
        assert len(server.stub_pids("nudenet_preprocess")) == 3
    detector = served["nudenet_trt"]
    assert detector["backend"] == "python"
    assert detector["parameters"]["threads"]["string_value"] == "1"
    assert detector["dynamic_batching"].get("max_queue_delay_microseconds", 0) == 0
    # Everything that was not swept is as it was.
    for model in ("nudenet_preprocess", "nudenet_trt"):
        was = repository.read_config(repository.config_path(model, "cpu", models))
        now = repository.read_config(repository.config_path(model, "mine", models))
        now.instance_group[0].count = was.instance_group[0].count
        now.parameters["threads"].CopyFrom(was.parameters["threads"])
        if model == "nudenet_preprocess":
            del now.parameters["threads"], was.parameters["threads"]
        assert now == was


def test_nothing_is_written_when_nothing_keeps_the_budget(models, monkeypatch):
    late = tune.Result(10.0, 90.0, 4, 67.0)
    monkeypatch.setattr(tune, "measure", lambda *_: late)
    monkeypatch.setattr(tune.signal, "signal", lambda *_: None)
    assert "nothing keeps p99 within 67 ms" in run("--models", models, "--config-name", "cpu", status=1)
    assert not list(models.glob("*/configs/tuned.pbtxt"))


def test_a_delay_beside_a_queue_policy_is_refused_before_anything_runs(models, monkeypatch):
    monkeypatch.setattr(tune, "measure", lambda *_: pytest.fail("measured"))
    monkeypatch.setattr(tune.signal, "signal", lambda *_: None)
    said = run("--models", models, "--config-name", "cpu", "--name", "mine", "--delays-us", "0,2000", status=1)
    assert "nudenet_trt: max_queue_delay_microseconds is 2000 beside a queue policy" in said


def test_what_stands_there_is_not_replaced_unasked(models):
    before = (models / "nudenet_trt" / "configs" / "cpu.pbtxt").read_text()
    assert "--force" in run("--models", models, "--name", "cpu", status=2)
    assert "lower-case" in run("--models", models, "--name", "../cpu", status=2)
    assert (models / "nudenet_trt" / "configs" / "cpu.pbtxt").read_text() == before


@pytest.mark.parametrize(
    "results,best",
    [
        ([(100, 50, 0), (200, 80, 0), (150, 60, 0)], 2),  # most pictures a second within the budget
        ([(100, 90, 0), (200, 80, 0), (150, 100, 0)], 1),  # none within: the shortest p99
        ([(100, 50, 0), (200, 40, 3)], 0),  # what fails requests is not within
    ],
)
def test_the_best_is_the_fastest_within_the_budget(results, best):
    found = [tune.Result(throughput, p99, 4, 67.0, failures) for throughput, p99, failures in results]
    assert max(found, key=lambda each: each.rank) is found[best]


def test_the_combinations_start_with_what_the_machine_has(monkeypatch):
    monkeypatch.setattr(tune.tuning, "cores", lambda: 4)
    now = tune.Candidate(2, 1, 4, 0)
    found = tune.candidates(now, [], [], [], [0, 2000])
    assert found[0] == now
    assert len(set(found)) == len(found)
    assert {(each.detectors, each.threads) for each in found} == {(1, 4), (2, 2), (2, 4), (4, 1), (4, 4)}
    assert {each.threads for each in tune.candidates(tune.Candidate(2, 3, None, 0), [], [], [7], [0])} == {None}
