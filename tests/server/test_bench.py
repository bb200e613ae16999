"""tools/bench.py on real servers and real peers, in runs too short for their figures to mean much."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import psutil
import pytest

from container import repository
from nudenet_tools import ROOT
from nudenet_tools.bench import frames, int8, promises


def run(output: Path, parts: str) -> tuple[dict, str]:
    """The report of a quick run, and what was printed; checks that no process stays behind."""
    mark = {"BENCH_TEST": uuid.uuid4().hex}
    command = [sys.executable, ROOT / "tools" / "bench.py", "run", "--quick", "--only", parts, "--output", output]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=os.environ | mark)
    assert result.returncode == 0, result.stdout + result.stderr
    left = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("BENCH_TEST") == mark["BENCH_TEST"] and process.status() != psutil.STATUS_ZOMBIE:
                left.append(process.cmdline())
        except psutil.Error:
            continue
    assert left == []
    return json.loads(output.read_text()), result.stdout


@pytest.mark.usefixtures("onnx_path")
def test_a_short_run_measures_everything_on_the_same_pictures(tmp_path):
    report, printed = run(tmp_path / "a.json", "ensemble,open,peers,growth")
    (row,) = report["rounds"]
    assert [load["level"] for load in row["ensemble"]] == [1, 8]
    assert [load["failures"] for load in row["ensemble"]] == [0, 0]
    for load in row["ensemble"]:
        assert set(load["core_ms"]) == {"triton", "preprocess", "trt", "postprocess", "load generator"}
        assert all(value > 0 for value in load["core_ms"].values())
    assert len(row["ceiling"]) == 2
    assert set(row["peers"]) == {
        "NudeDetector.detect",
        "NudeDetector.detect_batch(8)",
        "our ONNX on ONNX Runtime",
        "NudeDetector behind FastAPI",
        "textbook ensemble",
        "client-side preprocessing",
    }
    for name, peer in row["peers"].items():
        assert peer["throughput"] > 0
        assert peer["failures"] == 0
        has_client = name in ("NudeDetector behind FastAPI", "textbook ensemble", "client-side preprocessing")
        assert (0 < peer["client_core_ms"] < peer["core_ms"]) == has_client, name
    assert report["open_loop"]["level"] == 240
    assert [row["size"] for row in report["sizes"]] == ["360p"]
    assert [(row["batch"], row["level"]) for row in report["batches"]] == [(8, 1)]
    (instances,) = report["instances"]
    assert set(instances["memory_mb"]) == {"triton", "preprocess", "trt", "postprocess", "/dev/shm"}
    assert all(value > 1 for value in instances["memory_mb"].values())
    promises = {each["name"] for each in report["promises"]}
    assert {"throughput to NudeDetector.detect", "p50 at concurrency 1 to one picture in process"} <= promises
    assert "Where the CPU time goes" in printed
    assert (tmp_path / "a.svg").is_file()
    assert len(report["picture_bytes"]) >= 5
    assert all(100_000 < size < 175_000 for size in report["picture_bytes"])


@pytest.mark.usefixtures("onnx_path")
def test_aspects_are_measured_alone_and_mixed(tmp_path):
    report, printed = run(tmp_path / "a.json", "aspects")
    (row,) = report["rounds"]
    loads = row["aspects"]
    assert list(loads) == [*frames.ASPECTS, promises.MIXED]
    for load in loads.values():
        assert load["throughput"] > 0
        assert load["failures"] == 0
    assert set(loads[promises.MIXED]["canvas_batch"]) == {"180x320", "320x180", "320x320"}
    assert set(loads["3:4"]["canvas_batch"]) == {"320x256"}
    assert all(1 <= mean <= 8 for load in loads.values() for mean in load["canvas_batch"].values())
    assert [each["target"] for each in report["promises"]] == [">= 0.9"]
    assert "mean batch by" in printed


@pytest.mark.usefixtures("onnx_path")
def test_an_int8_graph_for_the_run_leaves_the_repository_alone(tmp_path, monkeypatch):
    own = tmp_path / "own" / "nudenet_trt" / "1"
    own.mkdir(parents=True)
    (own / "model.dynamic.onnx").symlink_to(repository.MODEL_REPOSITORY / "nudenet_trt" / "1" / "model.dynamic.onnx")
    monkeypatch.setattr(repository, "MODEL_REPOSITORY", tmp_path / "own")
    (tmp_path / "scratch").mkdir()
    models, origin = int8.prepare(tmp_path / "scratch", frames.frames("360p"))
    assert "good for speed" in origin
    assert [path.name for path in own.iterdir()] == ["model.dynamic.onnx"]
    made = (models / "nudenet_trt" / "1" / "model.int8.onnx").read_bytes()
    assert b"QuantizeLinear" in made
    # The user's own graph is taken as it is.
    (own / "model.int8.onnx").write_bytes(made)
    assert int8.prepare(tmp_path / "not needed", []) == (tmp_path / "own", "the user's calibration")
