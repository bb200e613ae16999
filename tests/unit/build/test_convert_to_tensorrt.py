"""The converter: through NVIDIA's own parser and builder (TensorRT for RTX, which needs no GPU), to an engine file.

Running an engine takes a GPU; that part is `tensorrt_api.running`. For ``--runtime tensorrt`` the same library builds
under TensorRT's name; `tensorrt_api.recording` holds each call against TensorRT's oldest and newest version.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import tensorrt_rtx_bindings as rtx
import typer
from onnx import numpy_helper
from rich.progress import Progress
from typer.testing import CliRunner

import convert_to_tensorrt
from container import plan_passport
from nudenet_build.evaluation import engine_check
from nudenet_build.graph import export, precision
from nudenet_build.trt import builder, layers, runner, variant
from nudenet_build.trt.progress import BuildProgress
from nudenet_build.trt.session import Level, Log, TensorRTError
from nudenet_steps.preprocess.canvas import CANVASES, LARGEST, SPECIFIED
from nudenet_steps.preprocess.letterbox import TO_UNIT
from tensorrt_api import record
from tensorrt_api.running import Gpu, World
from tensorrt_api.spy import Calls, Watched, watch

DATA = Path(__file__).parents[2] / "data"
PINNED = "11.1.0.106"
pytestmark = pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")


class Machine:
    """A machine with TensorRT for RTX, no GPU, an FP32 graph and a folder for the engine."""

    def __init__(self, folder: Path, onnx_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._monkeypatch, self.exported = folder, monkeypatch, onnx_path.parent
        self.onnx = Path(shutil.copy(self.exported / "model.dynamic.onnx", folder))
        self.output = folder / "engines" / "model.rtx.engine"
        monkeypatch.setenv("COLUMNS", "200")

    def convert(self, *arguments: object) -> tuple[int, str]:
        """Exit status, and everything printed on one line with single spaces."""
        app = typer.Typer()
        app.command()(convert_to_tensorrt.convert)
        command = ["--onnx", self.onnx, "--output", self.output, *arguments]
        result = CliRunner().invoke(app, [str(argument) for argument in command])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, " ".join(result.output.split())

    def written(self) -> list[str]:
        """Names of the files in the engine's folder, temporary ones too."""
        return sorted(path.name for path in self.output.parent.glob("*")) if self.output.parent.exists() else []

    def install_tensorrt(self, version: str = PINNED) -> None:
        """Add a GPU, and TensorRT: RTX's builder, and a runtime on which ONNX Runtime computes."""
        self.gpu = Gpu()
        self.calls = Calls()
        self.onnx = Path(shutil.copy(self.exported / "model.onnx", self.folder))
        self.world = World(rtx, self.onnx, self.gpu, self.calls)
        self.output = self.output.with_name("model.plan")
        library = Watched(rtx, self.calls, version, Runtime=self.world.runtime_class())
        self._monkeypatch.setitem(sys.modules, "tensorrt", library)
        self._monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", self.gpu)
        self._monkeypatch.setattr(engine_check, "ENOUGH_PICTURES", 2)  # the real number takes a GPU
        self._monkeypatch.setattr(convert_to_tensorrt, "LATENCY_RUNS", 2)
        self._monkeypatch.setattr(runner, "WARM_UP_RUNS", 1)
        self.images = self.folder / "images"
        self.images.mkdir()
        shutil.copy(DATA / "astronaut_720p.jpg", self.images)
        shutil.copy(DATA / "cat.jpg", self.images)

    def test_plan(self, *arguments: object) -> tuple[int, str]:
        """``--test`` of an FP32 plan for batches of up to 2."""
        common = ("--precision", "FP32", "--test", "--batch-size", "2", "--images", self.images)
        return self.convert(*common, *arguments)


@pytest.fixture
def here(tmp_path: Path, onnx_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, onnx_path, monkeypatch)


@pytest.fixture
def with_tensorrt(here: Machine) -> Machine:
    here.install_tensorrt()
    return here


@pytest.fixture(scope="module")
def graphs(onnx_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The graphs that are compiled. INT8 is calibrated with noise: its structure matters here, not its ranges."""
    folder = tmp_path_factory.mktemp("graphs")
    any_canvas = onnx_path.with_name("model.dynamic.onnx")
    paths = {"model.plan FP32": onnx_path}
    noise = np.random.default_rng(0).random((8, 3, *LARGEST), dtype=np.float32)
    for kind, source in ((variant.SPECIFIED, onnx_path), (variant.LIVE, any_canvas), (variant.RTX, any_canvas)):
        frames = noise[:, :, : SPECIFIED.height, : SPECIFIED.width] if kind is variant.SPECIFIED else noise
        models = {"FP16": precision.to_fp16(onnx.load(source))}
        if kind is variant.RTX:
            models["FP32"] = onnx.load(source)
        if kind is not variant.LIVE:
            models["INT8+FP16"] = precision.to_int8_fp16(source, frames, fp32_scales=kind is variant.RTX)
        for name, model in models.items():
            path = paths[f"{kind.file_name} {name}"] = folder / f"{kind.file_name} {name}.onnx"
            onnx.save(variant.with_inputs(model, kind.inputs), path)
    return paths


def compile_graph(graph: Path, kind: variant.Variant, *targets: str) -> builder.BuiltPlan:
    """Through NVIDIA's parser and builder."""
    options = builder.BuildOptions(inputs=kind.inputs, runtime=kind.runtime, targets=targets or ("SM89",))
    return builder.build_plan(rtx, graph, options, BuildProgress(Progress(disable=True)))


def convolution_types(built: builder.BuiltPlan, graph: Path) -> dict[str, int]:
    """How many convolutions run in which type."""
    return dict(layers.input_types(built.layers, [n.name for n in onnx.load(graph).graph.node if n.op_type == "Conv"]))


TYPES = {"FP32": {"FP32": 63}, "FP16": {"FP16": 63}, "INT8+FP16": {"INT8": 23, "FP16": 40}}
COMPILED = [
    *((variant.SPECIFIED, name) for name in TYPES),
    (variant.LIVE, "FP16"),
    *((variant.RTX, name) for name in TYPES),
]


@pytest.mark.parametrize(("kind", "name"), COMPILED, ids=lambda value: getattr(value, "file_name", value))
def test_the_compiler_takes_our_graphs_and_keeps_their_types(graphs, kind: variant.Variant, name: str) -> None:
    graph = graphs[f"{kind.file_name} {name}"]
    built = compile_graph(graph, kind)
    # FP16 scales: TensorRT 10.3 reads opset 20 at most, in which scale and data have one type.
    expected = "scales to fp32" if (kind, name) == (variant.SPECIFIED, "INT8+FP16") else "none"
    assert [warning for warning in built.warnings if expected not in warning] == []
    assert built.input_shape == ([3, *SPECIFIED] if kind is variant.SPECIFIED else [3, -1, -1])
    assert convolution_types(built, graph) == TYPES[name]
    decode = precision.decode_names(onnx.load(graph).graph)
    found = [layer for layer in built.layers if layer.nodes & decode]
    assert len(found) >= 3
    assert all(layer.outputs <= {"Float", "Int32", "Int64"} for layer in found), "the box decode is FP32"


def test_the_compiler_takes_a_static_graph_of_another_canvas(tmp_path) -> None:
    onnx.save(precision.to_fp16(export.build_model(export.find_source(), *LARGEST)), tmp_path / "model.onnx")
    built = compile_graph(tmp_path / "model.onnx", variant.SPECIFIED)
    assert (built.warnings, built.input_shape) == ([], [3, *LARGEST])


def test_the_profile_of_an_engine_for_any_canvas_holds_every_one() -> None:
    options = builder.BuildOptions(1, 4, 8)
    assert builder.profile_shapes(options, [3, 180, 320]) == [(1, 3, 180, 320), (4, 3, 180, 320), (8, 3, 180, 320)]
    least, best, largest = builder.profile_shapes(options, [3, -1, -1])
    assert best == (4, 3, 180, 320)
    for canvas in CANVASES:
        assert all(low <= side <= high for low, side, high in zip(least[2:], canvas, largest[2:], strict=True))


def test_either_input_gives_the_same_answer_bit_by_bit(onnx_path) -> None:
    import onnxruntime

    model = onnx.load(onnx_path.with_name("model.dynamic.onnx"))
    both = onnxruntime.InferenceSession(variant.with_inputs(model, ("pixels", "input")).SerializeToString())
    alone = onnxruntime.InferenceSession(model.SerializeToString())
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 256, 320), np.uint8)
    unit = pixels * TO_UNIT
    (expected,) = alone.run(None, {"input": unit})
    for sent in ({"pixels": pixels, "input": np.zeros_like(unit)}, {"pixels": np.zeros_like(pixels), "input": unit}):
        np.testing.assert_array_equal(both.run(None, sent)[0], expected)


# Operators of ours that NVIDIA's list of supported operators has in the parsers of TensorRT 10.1 (opset 9 to 20) and
# 10.15 (9 to 24), with the element types that it names: github.com/onnx/onnx-tensorrt, docs/operators.md.
FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}
OF_DATA = """Add Concat Conv DequantizeLinear Div MaxPool Mul Pad QuantizeLinear ReduceMax ReduceSum Reshape Resize
Shape Sigmoid Slice Softmax Split Sub Transpose"""
PUBLISHED = dict.fromkeys(OF_DATA.split(), FLOATS | {onnx.TensorProto.INT64}) | {
    "ArgMax": FLOATS,
    "Cast": FLOATS | {onnx.TensorProto.INT32, onnx.TensorProto.INT64, onnx.TensorProto.UINT8},
}


@pytest.mark.parametrize("name", ["model.plan FP32", "model.plan FP16", "model.plan INT8+FP16", "model.live.plan FP16"])
def test_graphs_for_tensorrt_keep_to_its_published_operators(graphs, name: str) -> None:
    model = onnx.load(graphs[name])
    graph = model.graph
    assert {opset.domain: opset.version for opset in model.opset_import} == {"": 19}
    inferred = onnx.shape_inference.infer_shapes(model).graph
    infos = [*inferred.value_info, *graph.input, *graph.output]
    types_ = {info.name: info.type.tensor_type.elem_type for info in infos}
    types_ |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        data = types_[node.input[0]]
        quantised = node.op_type == "DequantizeLinear" and data == onnx.TensorProto.INT8
        assert data in PUBLISHED[node.op_type] or quantised, f"{node.name}: {node.op_type} of type {data}"
    assert len({node.name for node in graph.node}) == len(graph.node)
    shapes = [info.type.tensor_type.shape.dim for info in [*graph.input, *graph.output]]
    assert all(dims[0].dim_param == "batch" for dims in shapes)
    if "live" not in name:
        assert all(dim.dim_value for dims in shapes for dim in dims[1:]), "static, but for the batch"
    summary = precision.summarise(model)
    assert (summary.nonzero_zero_points, summary.bias_dequantizers) == (0, 0)


def _unknown_operator(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.op_type == "Sigmoid").op_type = "Det"


def _zero_point(model: onnx.ModelProto) -> None:
    name = next(node for node in model.graph.node if node.op_type == "QuantizeLinear").input[2]
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.int8(3), name))


def _open_end(model: onnx.ModelProto) -> None:
    model.graph.node[5].input[0] = "nowhere"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (_unknown_operator, r"node /model\.0/act/Sigmoid \(Det\): not an operator that this TensorRT takes"),
        (_zero_point, r"\(QuantizeLinear\): .*Non-zero zero point is not supported"),
        (_open_end, "Node input was not registered"),
    ],
    ids=["operator", "zero point", "input"],
)
def test_faults_are_found_by_nvidias_parser(graphs, tmp_path, fault: Callable, words: str) -> None:
    model = onnx.load(graphs["model.rtx.engine INT8+FP16"])
    fault(model)
    onnx.save(model, tmp_path / "faulty.onnx")
    with pytest.raises(TensorRTError, match=words):
        compile_graph(tmp_path / "faulty.onnx", variant.RTX)


def test_a_node_name_that_is_used_twice_is_a_warning_of_nvidias_parser(graphs, tmp_path) -> None:
    model = onnx.load(graphs["model.rtx.engine FP16"])
    first, second = [node for node in model.graph.node if node.op_type == "Conv"][:2]
    second.name = first.name
    onnx.save(model, tmp_path / "faulty.onnx")
    (warning,) = compile_graph(tmp_path / "faulty.onnx", variant.RTX).warnings
    assert f"A node named {first.name} already exists" in warning


def test_the_cpus_int8_graph_is_refused_for_its_zero_points(onnx_path, tmp_path) -> None:
    frames = np.random.default_rng(0).random((2, 3, 180, 320), dtype=np.float32)
    onnx.save(precision.to_int8(onnx_path, frames, symmetric=False), tmp_path / "model.int8.onnx")
    with pytest.raises(TensorRTError, match="Non-zero zero point is not supported"):
        compile_graph(tmp_path / "model.int8.onnx", variant.SPECIFIED)


def test_writes_an_engine_for_four_kinds_of_gpu_without_one(here: Machine, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    here.onnx.unlink()
    status, output = here.convert("--export-onnx", "--precision", "FP16", "--runtime", "rtx", "--batch-size", "4")
    assert status == 0, output
    assert "warning" not in output
    assert "FP16 (convolutions: 63 in FP16), batch 1 to 4 tuned for 4" in output
    assert here.written() == ["model.rtx.engine", "model.rtx.engine.fp16.onnx", "model.rtx.engine.json"]
    passport = plan_passport.read(here.output)
    assert (passport.runtime, passport.tensorrt_version) == ("rtx", rtx.__version__)
    assert passport.targets == ["8.0", "8.6", "8.9", "12.0"]
    assert (passport.precision, passport.max_batch, passport.input_shape) == ("FP16", 4, [3, -1, -1])
    assert passport.plan_sha256 == plan_passport.sha256(here.output)
    assert passport.onnx_sha256 == plan_passport.sha256(here.output.with_name("model.rtx.engine.fp16.onnx"))
    assert "--runtime rtx --for sm80,sm86,sm89,sm120" in passport.rebuild_command()


def test_builds_for_the_gpu_that_is_there_or_for_those_named(here: Machine, monkeypatch) -> None:
    gpu = Gpu(compute_capability=(12, 0))
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", gpu)
    assert here.convert("--precision", "FP32", "--runtime", "rtx")[0] == 0
    assert plan_passport.read(here.output).targets == ["12.0"]
    gpu.compute_capability = (9, 0)
    _, output = here.convert("--precision", "FP32", "--runtime", "rtx")
    assert "this GPU, capability 9.0, is not served by TensorRT for RTX" in output
    assert plan_passport.read(here.output).targets == ["8.0", "8.6", "8.9", "12.0"]
    assert here.convert("--precision", "FP32", "--runtime", "rtx", "--for", "sm75, SM86")[0] == 0
    assert plan_passport.read(here.output).targets == ["7.5", "8.6"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--runtime", "rtx", "--for", "sm90"], ["does not compile for sm90", "sm89", "--runtime tensorrt"]),
        (["--runtime", "rtx", "--for", ""], ["does not compile for nothing"]),
        (["--runtime", "rtx", "--timing-cache", "timing.cache"], ["--timing-cache is for --runtime tensorrt"]),
        (["--runtime", "rtx", "--live"], ["--live is for --runtime tensorrt"]),
        (["--runtime", "tensorrt", "--for", "sm89"], ["--for is for --runtime rtx"]),
        (["--runtime", "rtx", "--test"], ["no usable GPU"]),
    ],
)
def test_options_that_do_not_fit(here: Machine, monkeypatch, arguments: list[str], words: list[str]) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", Gpu(count=0))
    status, output = here.convert("--precision", "FP32", *arguments)
    assert status == 2
    assert not any(".json" in name for name in here.written())
    assert all(word in output for word in words), output


def test_takes_what_is_installed_and_tensorrt_where_both_are(here: Machine, monkeypatch) -> None:
    assert here.convert("--precision", "FP32")[0] == 0
    assert plan_passport.read(here.output).runtime == "rtx"
    here.install_tensorrt()
    assert here.convert("--precision", "FP32")[0] == 0
    assert plan_passport.read(here.output).runtime == "tensorrt"


def test_nothing_installed_leaves_the_graph_and_says_what_to_install(here: Machine, monkeypatch) -> None:
    for name in ("tensorrt", "tensorrt_bindings", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    status, output = here.convert("--precision", "FP16")
    assert status == 2
    for words in (
        "pip install tensorrt-cu13",
        "make plan",
        "pip install -r requirements/rtx.txt",
        "graph to build from",
    ):
        assert words in output
    onnx.checker.check_model(str(here.output.with_name("model.plan.fp16.onnx")), full_check=True)
    assert here.written() == ["model.plan.fp16.onnx"], "no engine, no passport, nothing half-written"


def test_refuses_a_tensorrt_that_is_too_old(here: Machine, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", types.SimpleNamespace(__version__="8.6.1"))
    status, output = here.convert("--precision", "FP32", "--runtime", "tensorrt")
    assert (status, here.written()) == (2, [])
    assert "TensorRT 8.6.1 is too old" in output


@pytest.mark.parametrize("edit", ["name", "static"])
def test_refuses_a_graph_that_is_not_ours(here: Machine, edit: str) -> None:
    model = onnx.load(here.onnx)
    if edit == "name":  # the converter passes it on as it is
        model.graph.node[-1].output[0] = model.graph.output[0].name = "detections"
    else:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 8
    onnx.save(model, here.onnx)
    status, output = here.convert("--precision", "FP32", "--runtime", "rtx")
    assert status == 2
    assert not here.output.exists()
    assert "--export-onnx" in output


def test_an_output_that_cannot_be_written(here: Machine) -> None:
    here.output.parent.write_bytes(b"a file where the folder should be")
    status, output = here.convert("--precision", "FP32", "--runtime", "rtx")
    assert status == 2
    assert str(here.output.parent) in output


@pytest.mark.parametrize("option", ["--output", "--timing-cache"])
def test_a_file_that_cannot_be_written_is_refused_before_the_build(with_tensorrt: Machine, monkeypatch, option) -> None:
    monkeypatch.setattr(convert_to_tensorrt, "build", lambda *_: pytest.fail("built for nothing"))
    content = with_tensorrt.onnx.read_bytes()
    for path in (with_tensorrt.folder, "/proc/x/file", with_tensorrt.onnx):
        status, output = with_tensorrt.convert("--precision", "FP32", option, path)
        assert status == 2
        assert f"convert_to_tensorrt: {path} " in output
    assert with_tensorrt.onnx.read_bytes() == content


def test_the_converted_graph_does_not_replace_the_fp32_one(here: Machine) -> None:
    here.output.parent.mkdir()
    here.onnx = here.onnx.rename(here.output.with_name("model.rtx.engine.fp16.onnx"))
    content = here.onnx.read_bytes()
    status, output = here.convert("--precision", "FP16", "--runtime", "rtx")
    assert status == 2
    assert f"{here.onnx} is what this command reads" in output
    assert here.onnx.read_bytes() == content


def test_int8_is_the_mixed_graph_by_its_short_name() -> None:
    assert variant.Precision("INT8") is variant.Precision.INT8_FP16
    assert variant.Precision.INT8_FP16.in_plan == "INT8+FP16"


INTERRUPTED = """
import signal, sys
import typer
import convert_to_tensorrt
from nudenet_build.trt.progress import BuildProgress

def step(self, *arguments, known=BuildProgress.step):
    signal.raise_signal(signal.SIGINT)
    return known(self, *arguments)

BuildProgress.step = step
try:
    typer.run(convert_to_tensorrt.convert)
finally:
    print("handler restored:", signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


def test_ctrl_c_ends_the_build_and_writes_nothing(here: Machine) -> None:
    # In a process of its own, as users have it: NVIDIA's library does not survive every neighbour.
    options = ["--onnx", here.onnx, "--output", here.output, "--precision", "FP32", "--runtime", "rtx"]
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, *map(str, options)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert (ended.returncode, here.written()) == (2, ["model.rtx.engine.fp32.onnx"]), ended.stderr
    assert "cancelled" in ended.stdout + ended.stderr
    assert "handler restored: True" in ended.stdout


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (None, ["--precision INT8 needs --calibration-data", "collect_calibration_data.py"]),
        (np.full((64, 3, *LARGEST), 200, np.float32), ["0..255", "divide by 255"]),
    ],
    ids=["none", "not divided"],
)
def test_int8_refuses_missing_or_wrong_calibration_data(here: Machine, frames, words: list[str]) -> None:
    arguments = []
    if frames is not None:
        np.save(here.folder / "calib_data.npy", frames)
        arguments = ["--calibration-data", here.folder / "calib_data.npy"]
    status, output = here.convert("--precision", "INT8", "--runtime", "rtx", *arguments)
    assert status == 2
    assert all(word in output for word in words), output
    assert here.written() == [], "nothing is built in INT8's place"


@pytest.mark.parametrize(("batch", "preferred"), [(1, 1), (3, 3), (4, 4), (7, 4), (8, 8), (16, 8)])
def test_tunes_for_a_batch_size_that_the_server_prefers(batch: int, preferred: int) -> None:
    assert convert_to_tensorrt.preferred_batch(batch) == preferred


# TensorRT itself


def test_every_call_fits_the_oldest_and_the_newest_tensorrt(with_tensorrt: Machine, monkeypatch) -> None:
    machine = with_tensorrt
    watched = watch(rtx, monkeypatch)
    cache = machine.folder / "timing.cache"
    specified = (SPECIFIED.height, SPECIFIED.width)
    machine.world.profiles = [((1, 1), (2, 2)), (specified, specified)]  # the second is chosen
    assert machine.test_plan("--timing-cache", cache)[0] == 0
    _unknown_operator(model := onnx.load(machine.onnx))
    onnx.save(model, machine.onnx)
    assert machine.convert("--precision", "FP32")[0] == 2
    watched.made += machine.calls.made
    for version, recording in record.load().items():
        assert watched.unfit(recording) == [], f"TensorRT {version}; if the call is right, add it to record.USED"
    unused = set(recording) - {name for name, _, _ in watched.made}
    # One removed in 11; the logger, which an earlier test may have made; what a parser's error without a name is asked.
    assert unused <= {"BuilderFlag.FP16", "ILogger.Severity", "ILogger.__init__", "ParserError.node"}


def test_a_call_that_one_version_lacks_is_found() -> None:
    oldest, newest = record.load().values()
    calls = Calls()
    calls.add("BuilderFlag.FP16")
    assert (calls.unfit(oldest), calls.unfit(newest)) == ([], ["BuilderFlag.FP16(0 arguments, )"])
    wrong = Calls()
    wrong.add("Builder.create_network", (1, 2))
    wrong.add("IBuilderConfig.set_timing_cache", ("cache",), {"ignore": False})
    wrong.add("IBuilderConfig.max_workspace_size")
    assert len(wrong.unfit(newest)) == 3
    right = Calls()
    right.add("Builder.create_network")
    right.add("IBuilderConfig.set_timing_cache", ("cache",), {"ignore_mismatch": False})
    right.add("IExecutionContext.set_input_shape", ("input", (1, 3)))
    assert (right.unfit(oldest), right.unfit(newest)) == ([], [])


def test_builds_and_tests_a_plan(with_tensorrt: Machine, monkeypatch) -> None:
    monkeypatch.setenv("NVIDIA_TRITON_SERVER_VERSION", "26.07")
    status, output = with_tensorrt.test_plan()
    assert status == 0, output
    assert with_tensorrt.written() == ["model.plan", "model.plan.json"]
    passport = plan_passport.read(with_tensorrt.output)
    assert (passport.runtime, passport.tensorrt_version, passport.triton_release) == ("tensorrt", PINNED, "26.07")
    assert (passport.gpu_name, passport.compute_capability, passport.targets) == ("Stand-in GPU", "8.9", None)
    assert passport.accuracy is not None
    assert passport.accuracy["f1"] == 1.0
    assert passport.accuracy["matched"] >= 2  # the face, at each batch size
    assert "│ 180x320 │ 2 │ 0.500 │ 0.500 │ 4000 │" in output, output
    assert with_tensorrt.gpu.held == {}, "GPU memory, streams or events were not given back"


def test_builds_and_tests_the_live_plan_at_every_canvas(with_tensorrt: Machine, monkeypatch) -> None:
    here = with_tensorrt
    monkeypatch.setattr(convert_to_tensorrt, "CANVASES", canvases := CANVASES[:2])
    here.onnx = Path(shutil.copy(here.exported / "model.dynamic.onnx", here.folder))
    here.output = here.output.with_name("model.live.plan")
    here.world.graph = here.output.with_name("model.live.plan.fp32.onnx")
    status, output = here.test_plan("--live")
    assert status == 0, output
    passport = plan_passport.read(here.output)
    assert passport.input_shape == [3, -1, -1]
    assert "--live" in passport.rebuild_command()
    assert passport.accuracy is not None
    assert (passport.accuracy["f1"], passport.accuracy["pictures"]) == (1.0, 2 * len(canvases))
    for canvas in canvases:
        assert f"│ {canvas.height}x{canvas.width} │ 2 │ 0.500 │" in output, output
    assert here.gpu.held == {}


def test_timing_cache_is_kept(with_tensorrt: Machine) -> None:
    cache = with_tensorrt.folder / "timing.cache"
    assert with_tensorrt.convert("--precision", "FP32", "--timing-cache", cache)[0] == 0
    assert cache.is_file()


def test_foreign_timing_cache_is_put_aside_with_a_warning() -> None:
    """TensorRT for RTX takes any timing cache and uses none, so it cannot show this."""
    set_to = []

    class Config:
        create_timing_cache = staticmethod(lambda content: content)

        def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
            set_to.append(cache)
            return cache == b""

    (warning,) = builder._set_timing_cache(types.SimpleNamespace(__version__=PINNED), Config(), b"of another", Log())
    assert "the timing cache is of another TensorRT or GPU" in warning
    assert set_to == [b"of another", b""]


RUNNING = {
    "plan does not load": ({"deserializes": False}, ["cannot load the engine", "Version tag does not match"]),
    "no room for a context": ({"context_fits": False}, ["no room to run"]),
    "buffer refused": ({"accepts_addresses": False}, ["refuses a buffer"]),
    "does not run": ({"runs": False}, ["did not run"]),
}


@pytest.mark.parametrize("what", [*RUNNING, "no room for buffers", "no GPU"])
def test_failures_name_the_remedy_and_leave_the_old_plan_alone(with_tensorrt: Machine, what: str) -> None:
    here = with_tensorrt
    here.output.parent.mkdir()
    here.output.write_bytes(b"the old plan")
    change, words = RUNNING.get(what, ({}, ["out of memory"]))
    vars(here.world).update(change)
    if what == "no room for buffers":
        here.gpu.memory_left = 1 << 20
    elif what == "no GPU":
        here.gpu.count, words = 0, ["no usable GPU", "--gpus all"]
    status, output = here.test_plan()
    assert status == 2
    assert all(word in output for word in words), output
    assert here.written() == ["model.plan"]
    assert here.output.read_bytes() == b"the old plan"
    assert here.gpu.held == {}


def test_unknown_device(with_tensorrt: Machine) -> None:
    status, output = with_tensorrt.convert("--precision", "FP32", "--device", "3")
    assert (status, with_tensorrt.written()) == (2, [])
    assert "there is no GPU 3: this machine shows 1" in output


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        (
            ["Requested amount of GPU memory (9 bytes) could not be allocated.", "Could not find any implementation"],
            ["ran out of memory", "--workspace 1;", "--batch-size 4"],
        ),
        (["Could not find any implementation for node conv0."], ["--workspace 4", "conv0"]),
        ([], ["gave no reason", "--opt-level 2"]),
    ],
    ids=["memory", "workspace", "no reason"],
)
def test_what_the_builder_said_becomes_a_remedy(messages: list[str], words: list[str]) -> None:
    log = Log()
    for message in messages:
        log.hear(Level.ERROR, message)
    library = types.SimpleNamespace(__version__=PINNED)
    text = str(builder._failure(library, log, builder.BuildOptions(), BuildProgress(Progress(disable=True))))
    assert all(word in text for word in words), text


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
def test_a_plan_that_disagrees_is_not_put_in_place(with_tensorrt: Machine, distort: Callable) -> None:
    with_tensorrt.world.distort = distort
    status, output = with_tensorrt.test_plan()
    assert status == 1
    assert "disagrees with the FP32 graph" in output
    assert with_tensorrt.written() == []
    assert with_tensorrt.gpu.held == {}


def test_test_needs_pictures_with_something_to_find(with_tensorrt: Machine) -> None:
    (with_tensorrt.images / "astronaut_720p.jpg").unlink()
    status, output = with_tensorrt.test_plan()
    assert (status, with_tensorrt.written()) == (2, [])
    assert "detects nothing in these pictures" in output


def test_few_pictures_are_filled_up_with_variants(monkeypatch) -> None:
    monkeypatch.setattr(engine_check, "ENOUGH_PICTURES", 18)
    inputs, geometries = engine_check.load_pictures(DATA, 180, 320)
    assert len(inputs) == len(geometries) >= 18
    assert len(np.unique(inputs.reshape(len(inputs), -1)[:, ::997], axis=0)) == len(inputs)


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
