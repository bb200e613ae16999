"""The converter against stand-ins whose members and signatures are those of the real bindings, of both majors."""

from __future__ import annotations

import re
import shutil
import signal
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import typer
from rich.progress import Progress
from typer.testing import CliRunner

import convert_to_tensorrt
from container import plan_passport
from nudenet_build.evaluation import engine_check
from nudenet_build.trt import builder, runner
from nudenet_build.trt.progress import BuildProgress
from tensorrt_api.record import BINDINGS, CUDA_BINDINGS
from tensorrt_api.standin import CudaRuntime, TensorRT
from tensorrt_api.world import Gpu, World

VERSIONS = tuple(BINDINGS)
NEWEST = VERSIONS[-1]
DATA = Path(__file__).parents[2] / "data"


class Machine:
    """A machine with TensorRT, one GPU, an FP32 graph and a folder for the plan."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, version: str, cuda: str = CUDA_BINDINGS[-1]):
        self.world, self.gpu = World(), Gpu()
        self.trt = TensorRT(version, self.world)
        self.onnx = folder / "model.onnx"
        self.plan = folder / "plans" / "model.plan"
        self.images = folder / "images"
        self.images.mkdir()
        shutil.copy(DATA / "astronaut_720p.jpg", self.images)
        shutil.copy(DATA / "cat.jpg", self.images)
        monkeypatch.setattr(engine_check, "ENOUGH_PICTURES", 2)  # the real number takes a GPU
        monkeypatch.setattr(convert_to_tensorrt, "LATENCY_RUNS", 2)
        monkeypatch.setattr(runner, "WARM_UP_RUNS", 1)
        monkeypatch.setitem(sys.modules, "tensorrt", self.trt)
        monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", CudaRuntime(cuda, self.gpu))
        monkeypatch.setenv("COLUMNS", "200")

    def convert(self, *arguments: object) -> tuple[int, str]:
        """Exit status, and everything printed on one line with single spaces."""
        app = typer.Typer()
        app.command()(convert_to_tensorrt.convert)
        command = ["--onnx", self.onnx, "--output", self.plan, "--images", self.images, *arguments]
        result = CliRunner().invoke(app, [str(argument) for argument in command])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, " ".join(result.output.split())

    def written(self) -> list[str]:
        """Names of the files in the plan's folder, temporary ones too."""
        return sorted(path.name for path in self.plan.parent.glob("*")) if self.plan.parent.exists() else []


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, onnx_path: Path) -> Callable[..., Machine]:
    def make(version: str = NEWEST, cuda: str = CUDA_BINDINGS[-1]) -> Machine:
        made = Machine(tmp_path, monkeypatch, version, cuda)
        shutil.copy(onnx_path, made.onnx)
        return made

    return make


@pytest.mark.parametrize(("version", "cuda"), [*zip(VERSIONS, ["12.9.10", "13.3.1"] * 2, strict=True)])
def test_builds_and_tests_a_plan_with_every_supported_tensorrt(machine, version: str, cuda: str) -> None:
    here = machine(version, cuda)
    status, output = here.convert("--precision", "FP16", "--test", "--batch-size", "3")
    assert status == 0, output
    assert here.written() == ["model.fp16.onnx", "model.plan", "model.plan.json"]
    passport = plan_passport.read(here.plan)
    assert passport.tensorrt_version == version
    assert (passport.gpu_name, passport.compute_capability) == ("Stand-in GPU", "9.0")
    assert (passport.precision, passport.workspace_gb) == ("FP16", 2)
    assert (passport.min_batch, passport.preferred_batch, passport.max_batch) == (1, 3, 3)
    assert passport.input_shape == [3, 180, 320]
    assert passport.plan_sha256 == plan_passport.sha256(here.plan)
    assert passport.onnx_sha256 == plan_passport.sha256(here.plan.with_name("model.fp16.onnx"))
    assert passport.accuracy["f1"] == 1.0
    assert passport.accuracy["matched"] >= 3  # the face, at each batch size
    assert re.search(r"│ 3 │ 0\.500 │ 0\.500 │ 6000 │", output), output
    assert here.gpu.held == {}, "GPU memory, streams or events were not given back"


@pytest.mark.parametrize("version", VERSIONS)
def test_calls_tensorrt_in_this_order_with_these_values(machine, version: str) -> None:
    here = machine(version)
    status, output = here.convert("--precision", "FP32", "--workspace", "1.5", "--opt-level", "4", "--batch-size", "6")
    assert status == 0, output
    names = [name for name, _ in here.trt.calls]
    assert names == [
        "ILogger",
        "Builder",
        "Builder.create_network",
        "OnnxParser",
        "OnnxParser.parse_from_file",
        "INetworkDefinition.get_input",
        "INetworkDefinition.get_output",
        "INetworkDefinition.get_input",
        "Builder.create_builder_config",
        "IBuilderConfig.set_memory_pool_limit",
        "IBuilderConfig.clear_flag",
        "IBuilderConfig.builder_optimization_level=",
        "IProgressMonitor",
        "IBuilderConfig.progress_monitor=",
        "IBuilderConfig.create_timing_cache",
        "IBuilderConfig.set_timing_cache",
        "Builder.create_optimization_profile",
        "IOptimizationProfile.set_shape",
        "IBuilderConfig.add_optimization_profile",
        "Builder.build_serialized_network",
        "IBuilderConfig.get_timing_cache",
        "ITimingCache.serialize",
    ]
    flag = {"10": 1, "11": 0}[version[:2]]  # the enumerator's number changed
    assert here.trt.called("Builder.create_network") == [{"flags": 1 << flag}]
    pool = here.trt.MemoryPoolType.WORKSPACE
    assert here.trt.called("IBuilderConfig.set_memory_pool_limit") == [{"pool": pool, "pool_size": 3 << 29}]
    assert here.trt.called("IBuilderConfig.clear_flag") == [{"flag": here.trt.BuilderFlag.TF32}]
    assert here.trt.called("IBuilderConfig.builder_optimization_level=") == [{"value": 4}]
    shapes = [(batch, 3, 180, 320) for batch in (1, 4, 6)]
    assert here.trt.called("IOptimizationProfile.set_shape") == [
        {"input": "input", "min": shapes[0], "opt": shapes[1], "max": shapes[2]}
    ]


@pytest.mark.parametrize(
    ("right", "wrong", "error"),
    [
        ("config.clear_flag(trt.BuilderFlag.TF32)", "config.set_flag(trt.BuilderFlag.FP16)", AttributeError),
        (
            "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
            "NetworkDefinitionCreationFlag.EXPLICIT_BATCH",
            AttributeError,
        ),
        (
            "config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, ",
            "config.set_max_workspace_size(",
            AttributeError,
        ),
        ("config.builder_optimization_level =", "config.int8_calibrator =", AttributeError),
        ("builder.build_serialized_network(", "builder.build_engine(", AttributeError),
        ("ignore_mismatch=False", "ignore=False", TypeError),
        ("network, config)", "network)", TypeError),
        ("parse_from_file(str(onnx_path))", "parse_from_file(onnx_path)", TypeError),
        ("trt.OnnxParser(network, logger)", "trt.OnnxParser(logger, network)", TypeError),
        ("trt.OnnxParser(network, logger)", "trt.OnnxParser(network, logger, 1)", TypeError),
    ],
)
def test_a_wrong_call_fails_against_the_recorded_api(machine, right: str, wrong: str, error: type) -> None:
    """The proof that the tests above prove something: each edit of the builder makes the build fail."""
    here = machine("11.1.0.106")
    source = Path(builder.__file__).read_text()
    assert source.count(right) >= 1

    def build(text: str) -> object:
        module = types.ModuleType("edited_builder")
        sys.modules[module.__name__] = module
        exec(compile(text, "edited_builder.py", "exec"), module.__dict__)
        del sys.modules[module.__name__]
        return module.build_plan(here.trt, here.onnx, module.BuildOptions(), BuildProgress(Progress(disable=True)))

    assert build(source).plan
    with pytest.raises(error):
        build(source.replace(right, wrong))


@pytest.mark.parametrize("version", [version for version in VERSIONS if version.startswith("10")])
def test_members_removed_in_11_were_there_in_10(version: str) -> None:
    assert TensorRT(version, World()).BuilderFlag.FP16
    with pytest.raises(AttributeError, match="FP16"):
        _ = TensorRT(NEWEST, World()).BuilderFlag.FP16


@pytest.mark.parametrize(("batch", "preferred"), [(1, 1), (3, 3), (4, 4), (7, 4), (8, 8), (16, 8)])
def test_tunes_for_a_batch_size_that_the_server_prefers(batch: int, preferred: int) -> None:
    assert convert_to_tensorrt.preferred_batch(batch) == preferred


def test_missing_tensorrt_leaves_the_graph_and_says_what_to_install(machine, monkeypatch) -> None:
    here = machine()
    for name in ("tensorrt", "tensorrt_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    status, output = here.convert("--precision", "FP16")
    assert status == 2
    assert "pip install tensorrt-cu13" in output
    assert "make plan" in output
    assert "Traceback" not in output
    graph = here.plan.with_name("model.fp16.onnx")
    assert str(graph) in output
    onnx.checker.check_model(str(graph), full_check=True)
    assert here.written() == ["model.fp16.onnx"], "no plan, no passport, nothing half-written"


def test_finds_the_bindings_inside_a_triton_image(machine, monkeypatch) -> None:
    here = machine()
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_bindings", here.trt)
    monkeypatch.setenv("NVIDIA_TRITON_SERVER_VERSION", "26.07")
    status, output = here.convert("--precision", "FP32")
    assert status == 0, output
    assert plan_passport.read(here.plan).triton_release == "26.07"


def test_refuses_a_tensorrt_that_is_too_old(machine, monkeypatch) -> None:
    here = machine()
    monkeypatch.setitem(sys.modules, "tensorrt", types.SimpleNamespace(__version__="8.6.1"))
    status, output = here.convert("--precision", "FP32")
    assert (status, here.written()) == (2, [])
    assert "TensorRT 8.6.1 is too old" in output


def test_missing_cuda_bindings(machine, monkeypatch) -> None:
    here = machine()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    status, output = here.convert("--precision", "FP32")
    assert (status, here.written()) == (2, [])
    assert "requirements/tensorrt.txt" in output


FAILURES = {
    "no GPU": (lambda world, gpu: setattr(gpu, "count", 0), ["no usable GPU", "--gpus all"]),
    "builder does not start": (lambda world, gpu: setattr(world, "builder_starts", False), ["driver", "nvidia-smi"]),
    "parser errors": (
        lambda world, gpu: world.parser_errors.append(("/model.2/Conv", "Conv", "weights are odd")),
        ["/model.2/Conv (Conv): weights are odd", "--export-onnx"],
    ),
    "profile refused": (
        lambda world, gpu: setattr(world, "profile_index", -1),
        ["optimisation profile", "--batch-size"],
    ),
    "out of memory": (
        lambda world, gpu: (
            setattr(world, "build_succeeds", False),
            world.build_messages.append(
                ("WARNING", "Requested amount of GPU memory (9 bytes) could not be allocated.")
            ),
            world.build_messages.append(("ERROR", "Could not find any implementation for node conv0.")),
        ),
        ["ran out of memory", "--workspace 1;", "--batch-size 4", "conv0"],
    ),
    "workspace too small": (
        lambda world, gpu: (
            setattr(world, "build_succeeds", False),
            world.build_messages.append(("INTERNAL_ERROR", "Could not find any implementation for node conv0.")),
        ),
        ["--workspace 4", "conv0"],
    ),
    "no reason given": (
        lambda world, gpu: setattr(world, "build_succeeds", False),
        ["gave no reason", "--opt-level 2"],
    ),
    "plan does not load": (
        lambda world, gpu: setattr(world, "deserializes", False),
        ["cannot load the plan", "Version tag does not match"],
    ),
    "no room for a context": (lambda world, gpu: setattr(world, "context_fits", False), ["--workspace 1"]),
    "does not run": (lambda world, gpu: setattr(world, "runs", False), ["did not run"]),
    "no room for buffers": (
        lambda world, gpu: setattr(gpu, "memory_left", 8 << 20),
        ["out of memory", "smaller batches"],
    ),
}


@pytest.mark.parametrize("what", FAILURES)
@pytest.mark.parametrize("version", ["10.13.3.9", "11.1.0.106"])
def test_failures_name_the_remedy_and_leave_the_old_plan_alone(machine, what: str, version: str) -> None:
    here = machine(version)
    here.plan.parent.mkdir()
    here.plan.write_bytes(b"the old plan")
    provoke, words = FAILURES[what]
    provoke(here.world, here.gpu)
    status, output = here.convert("--precision", "FP32", "--test")
    assert status == 2
    assert all(word in output for word in words), output
    assert "Traceback" not in output
    assert here.written() == ["model.plan"]
    assert here.plan.read_bytes() == b"the old plan"
    assert here.gpu.held == {}


def test_unknown_device(machine) -> None:
    here = machine()
    status, output = here.convert("--precision", "FP32", "--device", "3")
    assert (status, here.written()) == (2, [])
    assert "there is no GPU 3: this machine shows 1" in output


def _swap_classes(output: np.ndarray) -> np.ndarray:
    output[..., 4] = (output[..., 4] + 1) % 18
    return output


def _move_boxes(output: np.ndarray) -> np.ndarray:
    output[..., :4] += 3
    return output


def _forget_the_last(output: np.ndarray) -> np.ndarray:
    """The fault of an engine that is right at batch 1 only."""
    output[1:, :, 5] = 0
    return output


def _not_a_number(output: np.ndarray) -> np.ndarray:
    return output * np.float32("nan")


@pytest.mark.parametrize("distort", [_swap_classes, _move_boxes, _forget_the_last, _not_a_number])
def test_a_plan_that_disagrees_is_not_put_in_place(machine, distort: Callable) -> None:
    here = machine()
    here.world.distort = distort
    status, output = here.convert("--precision", "FP32", "--test", "--batch-size", "2")
    assert status == 1
    assert "disagrees with the FP32 graph" in output
    assert here.written() == []
    assert here.gpu.held == {}


def test_test_needs_pictures_with_something_to_find(machine) -> None:
    here = machine()
    (here.images / "astronaut_720p.jpg").unlink()
    status, output = here.convert("--precision", "FP32", "--test")
    assert (status, here.written()) == (2, [])
    assert "detects nothing in these pictures" in output
    (here.images / "cat.jpg").unlink()
    assert "no JPEG files" in here.convert("--precision", "FP32", "--test")[1]


def test_few_pictures_are_filled_up_with_variants(onnx_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(engine_check, "ENOUGH_PICTURES", 18)
    inputs, geometries = engine_check.load_pictures(DATA, 180, 320)
    assert len(inputs) == len(geometries) >= 18
    assert len(np.unique(inputs.reshape(len(inputs), -1)[:, ::997], axis=0)) == len(inputs)
    reference = engine_check.reference_candidates(onnx_path, inputs[:6])
    session = onnxruntime.InferenceSession(onnx_path)
    agreement = engine_check.compare(
        lambda batch: session.run(None, {"input": batch})[0], inputs[:6], geometries[:6], reference, [1, 4]
    )
    assert agreement.f1 == 1
    assert engine_check.faults(agreement, engine_check.LIMITS["FP32"]) == []


def test_ctrl_c_ends_the_build_and_writes_nothing(machine) -> None:
    here = machine()
    before = signal.getsignal(signal.SIGINT)
    here.world.interrupt_at_step = lambda: signal.raise_signal(signal.SIGINT)
    status, output = here.convert("--precision", "FP32")
    assert (status, here.written()) == (2, [])
    assert "cancelled" in output
    assert signal.getsignal(signal.SIGINT) is before


def test_progress_shows_nested_phases() -> None:
    bars = Progress(disable=True)
    progress = BuildProgress(bars)
    progress.start("Building", None, 2)
    progress.start("Tactics", "Building", 3)
    assert progress.step("Tactics", 1)
    assert [(task.description, task.completed, task.total) for task in bars.tasks] == [
        ("Building", 0, 2),
        ("  Tactics", 2, 3),
    ]
    progress.finish("Tactics")
    progress.finish("Building")
    assert [(task.description, task.completed) for task in bars.tasks] == [("Building", 2)]
    progress.cancelled = True
    assert not progress.step("Building", 0)


def test_timing_cache_is_used_and_kept(machine, tmp_path: Path) -> None:
    here = machine()
    cache = tmp_path / "timing.cache"
    assert here.convert("--precision", "FP32", "--timing-cache", cache)[0] == 0
    assert cache.read_bytes() == b"timings;"
    assert here.convert("--precision", "FP32", "--timing-cache", cache)[0] == 0
    assert cache.read_bytes() == b"timings;timings;"


def test_foreign_timing_cache_is_put_aside_with_a_warning(machine, tmp_path: Path) -> None:
    here = machine()
    cache = tmp_path / "timing.cache"
    cache.write_bytes(b"of another GPU")
    here.world.timing_cache_fits = False
    status, output = here.convert("--precision", "FP32", "--timing-cache", cache)
    assert status == 0
    assert "the timing cache is of another TensorRT or GPU" in output
    assert cache.read_bytes() == b"timings;"


def test_a_plan_built_with_too_little_memory_warns(machine) -> None:
    here = machine()
    here.world.build_messages.append(("WARNING", "Skipping tactic 3 due to insufficient memory"))
    status, output = here.convert("--precision", "FP32")
    assert status == 0
    assert "warning: some kernels did not fit" in output


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (None, ["--precision INT8 needs --calibration-data", "collect_calibration_data.py"]),
        (np.full((64, 3, 180, 320), 200, np.float32), ["0..255", "divide by 255"]),
        (np.zeros((64, 3, 180, 320), np.uint8), ["uint8", "float32"]),
        (np.zeros((64, 3, 32, 32), np.float32), ["[64, 3, 32, 32]", "[N,3,180,320]"]),
    ],
    ids=["none", "not divided", "bytes", "another size"],
)
def test_int8_refuses_missing_or_wrong_calibration_data(machine, tmp_path: Path, frames, words: list[str]) -> None:
    here = machine()
    arguments = []
    if frames is not None:
        np.save(tmp_path / "calib_data.npy", frames)
        arguments = ["--calibration-data", tmp_path / "calib_data.npy"]
    status, output = here.convert("--precision", "INT8", *arguments)
    assert status == 2
    assert all(word in output for word in words), output
    assert here.written() == [], "nothing is built in INT8's place"
    assert here.trt.calls == []


def test_int8_builds_from_the_mixed_graph(machine, tmp_path: Path, monkeypatch) -> None:
    here = machine()
    asked = []

    def convert(*arguments: object) -> onnx.ModelProto:
        asked.append(arguments)
        return onnx.load(here.onnx)

    monkeypatch.setattr(convert_to_tensorrt.graph_precision, "convert", convert)
    data = tmp_path / "calib_data.npy"
    status, output = here.convert("--precision", "int8", "--calibration-data", data)
    assert status == 0, output
    assert asked == [(convert_to_tensorrt.graph_precision.Precision.INT8_FP16, here.onnx, data)]
    (call,) = here.trt.called("OnnxParser.parse_from_file")
    assert call == {"model": str(here.plan.with_name("model.int8_fp16.onnx"))}
    passport = plan_passport.read(here.plan)
    assert passport.precision == "INT8+FP16"
    assert "--precision INT8" in passport.rebuild_command()


def test_export_onnx_makes_the_graph_first(machine) -> None:
    here = machine()
    here.onnx.unlink()
    status, output = here.convert("--precision", "FP32")
    assert (status, here.written()) == (2, [])
    assert "--export-onnx" in output
    assert here.convert("--precision", "FP32", "--export-onnx")[0] == 0
    assert here.plan.read_bytes() == here.onnx.read_bytes()


@pytest.mark.parametrize("edit", ["name", "static"])
def test_refuses_a_graph_that_is_not_ours(machine, edit: str) -> None:
    here = machine()
    model = onnx.load(here.onnx)
    if edit == "name":
        model.graph.output[0].name = "detections"
    else:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 8
    onnx.save(model, here.onnx)
    status, output = here.convert("--precision", "FP32")
    assert (status, here.written()) == (2, [])
    assert "--export-onnx" in output
