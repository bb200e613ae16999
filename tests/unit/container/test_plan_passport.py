"""Writing and reading passports, and putting a plan in place."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from container import plan_passport
from container.plan_passport import Passport, PassportError
from nudenet_build.trt import plan_writer
from nudenet_build.trt.builder import BuildOptions, BuiltPlan
from nudenet_build.trt.cuda_device import Gpu

PASSPORT = Passport(
    tensorrt_version="11.1.0.106",
    gpu_name="NVIDIA L4",
    compute_capability="8.9",
    precision="FP16",
    min_batch=1,
    preferred_batch=8,
    max_batch=8,
    input_shape=[3, 180, 320],
    workspace_gb=2,
    optimization_level=3,
    onnx_sha256="a" * 64,
    plan_sha256="b" * 64,
    built_at="2026-01-01T00:00:00+00:00",
    triton_release="26.07",
    accuracy={"f1": 0.995},
)


def test_reads_what_was_written(tmp_path: Path) -> None:
    plan_writer.write_passport(tmp_path / "model.plan", PASSPORT)
    assert (tmp_path / "model.plan.json").is_file()
    assert plan_passport.read(tmp_path / "model.plan") == PASSPORT


def test_plan_and_passport_describe_each_other(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"graph")
    plan = tmp_path / "1" / "model.plan"
    built = BuiltPlan(b"engine", b"", [3, 96, 64], [])
    options = BuildOptions(1, 4, 6, 1.5, 5)
    gpu = Gpu(0, "NVIDIA L4", "8.9", 1, 2)
    plan_writer.write(plan, built, options, gpu, "10.3.0", "FP32", tmp_path / "model.onnx", None)
    passport = plan_passport.read(plan)
    assert plan.read_bytes() == b"engine"
    assert passport.plan_sha256 == plan_passport.sha256(plan)
    assert passport.onnx_sha256 == plan_passport.sha256(tmp_path / "model.onnx")
    assert (passport.preferred_batch, passport.max_batch, passport.input_shape) == (4, 6, [3, 96, 64])
    assert (passport.accuracy, passport.triton_release) == (None, None)
    assert sorted(path.name for path in plan.parent.iterdir()) == ["model.plan", "model.plan.json"]
    assert plan.stat().st_mode & 0o444 == 0o444, "the server runs as another user"


@pytest.mark.parametrize(
    ("precision", "command"),
    [
        ("FP16", "python build/convert_to_tensorrt.py --precision FP16 --batch-size 8 --workspace 2"),
        (
            "INT8+FP16",
            "python build/convert_to_tensorrt.py --precision INT8 --batch-size 8 --workspace 2 "
            "--calibration-data calib_data.npy",
        ),
    ],
)
def test_rebuild_command(precision: str, command: str) -> None:
    assert dataclasses.replace(PASSPORT, precision=precision).rebuild_command() == command


def test_missing_passport(tmp_path: Path) -> None:
    with pytest.raises(PassportError, match=r"model\.plan\.json is missing"):
        plan_passport.read(tmp_path / "model.plan")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda content: content.pop("gpu_name"), "gpu_name"),
        (lambda content: content.update(colour="red"), "colour"),
        (lambda content: content.update(format=2), "format 1"),
        (lambda content: content.update(tensorrt_version=11), "tensorrt_version must be text"),
        (lambda content: content.update(plan_sha256=""), "plan_sha256 must be text"),
    ],
)
def test_damaged_passports_are_named(tmp_path: Path, edit, message: str) -> None:
    plan = tmp_path / "model.plan"
    plan_writer.write_passport(plan, PASSPORT)
    content = json.loads(plan_passport.path_for(plan).read_text())
    edit(content)
    plan_passport.path_for(plan).write_text(json.dumps(content))
    with pytest.raises(PassportError, match=message):
        plan_passport.read(plan)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_what_is_no_passport_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.plan.json").write_text(text)
    with pytest.raises(PassportError):
        plan_passport.read(tmp_path / "model.plan")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"runtime": "tpu"}, "runtime must be tensorrt or rtx"),
        ({"runtime": "rtx"}, "targets must list compute capabilities"),
        ({"gpu_name": ""}, "gpu_name must be text"),
    ],
)
def test_refuses_a_passport_that_contradicts_itself(tmp_path: Path, change: dict, message: str) -> None:
    plan_writer.write_passport(tmp_path / "model.plan", dataclasses.replace(PASSPORT, **change))
    with pytest.raises(PassportError, match=message):
        plan_passport.read(tmp_path / "model.plan")
