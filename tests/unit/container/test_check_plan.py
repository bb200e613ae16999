"""Refusing plans before Triton does, in words that help."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from container import check_plan, plan_passport, repository
from container.check_plan import PlanError, check, same_version
from container.plan_passport import Passport
from nudenet_build.trt import plan_writer

TOOLS = Path(check_plan.__file__).parent


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """A plan with its passport: TensorRT 11.1.0.106, compute capability 8.9."""
    path = tmp_path / "model.plan"
    path.write_bytes(b"engine")
    passport = Passport(
        tensorrt_version="11.1.0.106",
        gpu_name="NVIDIA L4",
        compute_capability="8.9",
        precision="FP16",
        min_batch=1,
        preferred_batch=8,
        max_batch=8,
        input_shape=[3, 180, 320],
        workspace_gb=1,
        optimization_level=3,
        onnx_sha256="a" * 64,
        plan_sha256=plan_passport.sha256(path),
        built_at="2026-01-01T00:00:00+00:00",
    )
    plan_writer.write_passport(path, passport)
    return path


@pytest.fixture
def engine(plan: Path) -> Path:
    """An engine of TensorRT for RTX 1.7.1.116, built without a GPU for 8.6, 8.9 and 12.0."""
    path = plan.with_name("model.rtx.engine")
    path.write_bytes(b"engine")
    passport = dataclasses.replace(
        plan_passport.read(plan),
        runtime="rtx",
        tensorrt_version="1.7.1.116",
        gpu_name="",
        compute_capability="",
        targets=["8.6", "8.9", "12.0"],
    )
    plan_writer.write_passport(path, passport)
    return path


@pytest.mark.parametrize("version", ["11.1.0.106", "11.1.0", "11.1.0.106+cuda13.3", None])
@pytest.mark.parametrize("capability", ["8.9", None])
def test_accepts_a_plan_that_fits(plan: Path, version: str | None, capability: str | None) -> None:
    check(plan, version, capability)


@pytest.mark.parametrize("version", ["10.13.3.9", "11.2.1.2", "11.1.0.114", "11.1.1", "11.1", "unknown"])
def test_refuses_another_tensorrt(plan: Path, version: str) -> None:
    with pytest.raises(PlanError) as caught:
        check(plan, version, "8.9")
    message = str(caught.value)
    assert f"built by TensorRT 11.1.0.106, this server has {version}" in message
    assert "make plan" in message
    assert "convert_to_tensorrt.py --precision FP16 --batch-size 8 --workspace 1" in message


@pytest.mark.parametrize("capability", ["9.0", "8.6", "8.90"])
def test_refuses_another_kind_of_gpu(plan: Path, capability: str) -> None:
    with pytest.raises(PlanError, match=r"built on NVIDIA L4 \(compute capability 8\.9\).*make plan"):
        check(plan, "11.1.0.106", capability)


def test_refuses_a_plan_that_was_replaced_or_cut_off(plan: Path) -> None:
    plan.write_bytes(b"engin")
    with pytest.raises(PlanError, match=r"not the file its passport describes.*make plan"):
        check(plan, "11.1.0.106", "8.9")


def test_refuses_a_missing_plan_and_a_missing_passport(plan: Path) -> None:
    plan_passport.path_for(plan).unlink()
    with pytest.raises(PlanError, match=r"model\.plan\.json is missing.*make plan"):
        check(plan, None, None)
    plan.unlink()
    with pytest.raises(PlanError, match=r"there is no plan at .*make plan"):
        check(plan, None, None)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.13.3.9", "10.13.3.9.post1", True),
        ("10.13.3", "10.13.3.9", True),
        ("10.13.3.9", "10.13.3.8", False),
        ("10.13", "10.13.3.9", False),
        ("11.10.0", "11.1.0", False),
        ("", "11.1.0", False),
    ],
)
def test_versions(one: str, other: str, same: bool) -> None:
    assert same_version(one, other) is same
    assert same_version(other, one) is same


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command line, as a container runs it."""
    environment = {key: value for key, value in os.environ.items() if key != "TRT_VERSION"}
    environment["PYTHONPATH"] = str(TOOLS.parent)
    command = [sys.executable, str(TOOLS / "check_plan.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_command_line(plan: Path) -> None:
    fits = run(plan, "--tensorrt-version", "11.1.0.106", "--compute-capability", "8.9")
    assert (fits.returncode, fits.stderr) == (0, "")
    assert "fits TensorRT 11.1.0.106, compute capability 8.9" in fits.stdout
    other = run(plan, "--tensorrt-version", "11.2.1.2", "--compute-capability", "8.9")
    assert other.returncode == 1
    assert other.stderr.startswith("check_plan: ")
    assert "this server has 11.2.1.2" in other.stderr


CONFIG = """
name: "nudenet_trt" platform: "tensorrt_plan" max_batch_size: %d
input [ { name: "input" data_type: TYPE_FP32 dims: %s } ]
"""


@pytest.mark.parametrize(
    ("max_batch", "dims", "problem"),
    [
        (8, [3, 180, 320], None),
        (4, [3, 180, 320], None),
        (8, [3, -1, -1], r"says \[3, -1, -1\]"),  # the plan of the live configuration is another one
        (16, [3, 180, 320], "batches of up to 8.*says 16.*--batch-size 16"),
        (8, [3, 320, 320], r"takes input \[3, 180, 320\].*says \[3, 320, 320\]"),
        (8, [180, 320], r"says \[180, 320\]"),
    ],
)
def test_the_configuration_asks_for_what_the_plan_was_built_for(
    plan: Path, tmp_path: Path, max_batch: int, dims: list[int], problem: str | None
) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_text(CONFIG % (max_batch, dims))
    fits = run(plan, "--config", path, "--tensorrt-version", "11.1.0.106", "--compute-capability", "8.9")
    assert fits.returncode == (problem is not None)
    assert problem is None or re.search(problem, fits.stderr)


def test_the_committed_production_configuration_is_the_one_that_plans_are_built_for(plan: Path) -> None:
    check_plan.check_configuration(plan, repository.read_config(repository.config_path("nudenet_trt")))


def test_the_live_configuration_has_a_plan_of_its_own(plan: Path) -> None:
    live = repository.read_config(repository.config_path("nudenet_trt", "live"))
    with pytest.raises(check_plan.PlanError, match=r"says \[3, -1, -1\]"):
        check_plan.check_configuration(plan, live)
    with pytest.raises(check_plan.PlanError, match=r"no plan at .*model\.live\.plan; build it: make plan PLAN=live"):
        check_plan.check(plan.with_name(live.default_model_filename), None, None)


def test_asks_the_library_and_the_driver(plan: Path, monkeypatch, capsys) -> None:
    class Library:
        def __init__(self, name: str) -> None:
            if name not in ("libnvinfer.so.11", "libcuda.so.1"):
                raise OSError(name)

        getInferLibMajorVersion = staticmethod(lambda: 11)
        getInferLibMinorVersion = staticmethod(lambda: 1)
        getInferLibPatchVersion = staticmethod(lambda: 0)
        getInferLibBuildVersion = staticmethod(lambda: 106)
        cuInit = staticmethod(lambda flags: 0)
        cuDeviceGet = staticmethod(lambda device, index: 0 if index == 0 else 101)

        @staticmethod
        def cuDeviceGetAttribute(value, attribute: int, device) -> int:
            value._obj.value = {75: 8, 76: 9}[attribute]
            return 0

    monkeypatch.setattr(check_plan.ctypes, "CDLL", Library)
    assert check_plan.library_version() == "11.1.0.106"
    assert check_plan.gpu_capability() == "8.9"
    assert check_plan.gpu_capability(1) is None
    monkeypatch.setattr(sys, "argv", ["check_plan.py", str(plan)])
    assert check_plan.main() == 0
    assert "fits TensorRT 11.1.0.106" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["check_plan.py", str(plan), "--device", "1"])
    assert check_plan.main() == 1
    assert "--gpus all" in capsys.readouterr().err


def test_without_library_or_gpu_nothing_can_be_served(plan: Path, monkeypatch, capsys) -> None:
    def nothing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(check_plan.ctypes, "CDLL", nothing)
    monkeypatch.delenv("TRT_VERSION", raising=False)
    monkeypatch.setattr(sys, "argv", ["check_plan.py", str(plan)])
    assert check_plan.main() == 1
    assert "no TensorRT (libnvinfer.so.10 or .11) found" in capsys.readouterr().err
    monkeypatch.setenv("TRT_VERSION", "11.1.0.106")
    assert check_plan.main() == 1
    assert "--gpus all" in capsys.readouterr().err
    monkeypatch.setenv("TRT_VERSION", "11.2.1.2")
    assert check_plan.main() == 1
    assert "this server has 11.2.1.2" in capsys.readouterr().err


def test_rebuild_hint_follows_the_plan(plan: Path) -> None:
    passport = dataclasses.replace(plan_passport.read(plan), precision="INT8+FP16", max_batch=16)
    plan_writer.write_passport(plan, passport)
    with pytest.raises(PlanError, match=r"--precision INT8 --batch-size 16 .*--calibration-data"):
        check(plan, "10.3.0", "8.9")


@pytest.mark.parametrize("capability", ["8.6", "8.9", "12.0", "12.1", None])
def test_accepts_an_engine_for_rtx_on_the_gpus_it_was_built_for(engine: Path, capability: str | None) -> None:
    check(engine, "1.7.1.116", capability)


@pytest.mark.parametrize("capability", ["9.0", "10.0", "7.0"])
def test_names_what_serves_a_gpu_that_rtx_does_not(engine: Path, capability: str) -> None:
    words = f"this GPU, capability {capability}, is not served by TensorRT for RTX: build a TensorRT plan.*"
    with pytest.raises(PlanError, match=f"{words}--config-name cuda"):
        check(engine, "1.7.1.116", capability)


def test_refuses_an_engine_for_other_gpus_or_of_another_version(engine: Path) -> None:
    with pytest.raises(
        PlanError, match=r"built for compute capability 8\.6, 8\.9, 12\.0, this GPU has 8\.0.*--for sm80"
    ):
        check(engine, "1.7.1.116", "8.0")
    with pytest.raises(
        PlanError, match=r"built by TensorRT for RTX 1\.7\.1\.116, .*--runtime rtx --for sm86,sm89,sm120"
    ):
        check(engine, "1.8.0.1", "8.9")
    engine.unlink()
    with pytest.raises(PlanError, match=r"there is no engine at .*--runtime rtx"):
        check(engine, None, None)


def test_command_line_names_the_kind_of_engine(engine: Path) -> None:
    fits = run(engine, "--tensorrt-version", "1.7.1.116", "--compute-capability", "8.9")
    assert (fits.returncode, fits.stderr) == (0, "")
    assert "fits TensorRT for RTX 1.7.1.116, compute capability 8.9" in fits.stdout


def test_the_rtx_configuration_is_checked_with_its_engine(engine: Path, tmp_path: Path, monkeypatch) -> None:
    configs = tmp_path / "models" / "nudenet_trt" / "configs"
    configs.mkdir(parents=True)
    shutil.copy(repository.MODEL_REPOSITORY / "nudenet_trt" / "configs" / "rtx.pbtxt", configs)
    monkeypatch.setattr(check_plan, "rtx_library_version", lambda: "1.7.1.116")
    monkeypatch.setattr(check_plan, "gpu_capability", lambda device: "9.0")
    with pytest.raises(PlanError, match="there is no engine at"):
        check_plan.check_repository(tmp_path / "models", "rtx")
    version = configs.parent / "1"
    version.mkdir()
    for path in (engine, plan_passport.path_for(engine)):
        shutil.copy(path, version)
    with pytest.raises(PlanError, match=r"this GPU, capability 9\.0, is not served by TensorRT for RTX"):
        check_plan.check_repository(tmp_path / "models", "rtx")
    monkeypatch.setattr(check_plan, "gpu_capability", lambda device: "8.9")
    check_plan.check_repository(tmp_path / "models", "rtx")
