"""The engine for TensorRT for RTX. Our GPUs cannot run it: `tensorrt_api.running` takes the documented calls in the
documented order and fails on any other. Enumerators and the logger are the library's own."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import numpy as np
import onnx
import pytest
import tensorrt_rtx_bindings as rtx
from onnx import TensorProto, helper, numpy_helper

from nudenet_build.trt.variant import with_inputs
from nudenet_steps.cuda import dlpack, execution
from nudenet_steps.engines import EngineError, engine_class
from nudenet_steps.engines.tensorrt_rtx import FILE, TensorRtRtxEngine
from nudenet_steps.preprocess.canvas import Canvas
from nudenet_steps.preprocess.letterbox import TO_UNIT
from tensorrt_api.running import Gpu, World

CANVASES, CANDIDATES, LARGEST = (Canvas(4, 5), Canvas(6, 4)), 7, 3
SIZE = CANVASES[0]


def save_network(path: Path) -> None:
    """Row k of a picture's candidates is k times the picture's mean; takes pixels and input, as the engine's graph."""
    constants = {
        "axes": np.array([1, 2, 3], np.int64),
        "shape": np.array([-1, 1, 1], np.int64),
        "rows": np.repeat(np.arange(CANDIDATES, dtype=np.float32), 6).reshape(1, CANDIDATES, 6),
    }
    nodes = [
        helper.make_node("ReduceMean", ["input", "axes"], ["mean"], keepdims=0),
        helper.make_node("Reshape", ["mean", "shape"], ["column"]),
        helper.make_node("Mul", ["column", "rows"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, "height", "width"])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", CANDIDATES, 6])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.save(with_inputs(model, ("pixels", "input")), path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The model's version folder with an engine and its passport."""
    (tmp_path / FILE).write_bytes(b"an engine")
    passport = {"precision": "FP16", "max_batch": LARGEST, "input_shape": [3, -1, -1], "other": 1}
    passport |= {"tensorrt_version": rtx.__version__, "targets": ["8.9"]}
    (tmp_path / f"{FILE}.json").write_text(json.dumps(passport))
    return tmp_path


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    gpu = Gpu()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", gpu)
    return gpu


@pytest.fixture
def world(folder: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> World:
    save_network(folder / "network.onnx")
    world = World(rtx, folder / "network.onnx", gpu)
    world.largest_batch = LARGEST
    library = types.ModuleType("tensorrt_rtx")
    library.__dict__.update(vars(rtx), Runtime=world.runtime_class())
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", library)
    return world


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (LARGEST, 3, *SIZE), np.uint8)


def start(folder: Path, max_batch: int = LARGEST, precision: str = "auto") -> TensorRtRtxEngine:
    return TensorRtRtxEngine(folder, max_batch, precision, canvases=CANVASES)


def expected(pixels: np.ndarray) -> np.ndarray:
    rows = (pixels * TO_UNIT).mean(axis=(1, 2, 3))[:, None, None] * np.arange(CANDIDATES)[None, :, None]
    return np.repeat(rows, 6, axis=2)


def test_answers_for_parts_wherever_they_lie(world, folder, pictures):
    engine = engine_class("rtx")(folder, LARGEST, canvases=CANVASES)
    assert (engine.name, engine.precision) == (f"TensorRT for RTX {rtx.__version__}", "FP16")
    on_gpu = dlpack.GpuTensor(dlpack.export(pictures[2:].ctypes.data, (1, 3, *SIZE), np.uint8, 0))
    for parts in ([pictures], [pictures[:1], pictures[1:2], on_gpu], [pictures[1:2]]):
        rows = pictures[1:2] if len(parts) == 1 and len(parts[0]) == 1 else pictures
        np.testing.assert_allclose(engine.infer(parts), expected(rows), rtol=1e-5)


def test_pixels_and_input_of_every_canvas_take_turns(world, folder, pictures):
    engine = start(folder)
    for _ in range(2):
        for canvas in CANVASES:
            pixels = np.resize(pictures, (2, 3, *canvas))
            answer = engine.infer([pixels]).copy()
            np.testing.assert_allclose(answer, expected(pixels), rtol=1e-5)
            np.testing.assert_array_equal(engine.infer([pixels * TO_UNIT]), answer)


def test_everything_is_compiled_and_captured_before_the_first_request(world, folder, pictures):
    engine = start(folder)
    shapes = [(count, 3, *canvas) for canvas in CANVASES for count in range(1, LARGEST + 1)]
    assert world.compiled == shapes
    assert world.captured == set(shapes)
    for count in (3, 1, 2):
        engine.infer([pictures[:count]])
        engine.infer([pictures[:count] * TO_UNIT])
    assert world.compiled == shapes


def test_the_second_start_takes_kernels_from_the_disk(world, folder):
    start(folder)
    assert [path.name for path in folder.glob("*kernels*")] == [f"{FILE}.kernels"]
    world.compiled.clear()
    start(folder)
    assert world.compiled == []


def test_kernels_of_another_gpu_are_replaced(world, folder):
    (folder / f"{FILE}.kernels").write_bytes(b"of another driver")
    start(folder)
    assert len(world.compiled) == LARGEST * len(CANVASES)
    assert (folder / f"{FILE}.kernels").read_bytes() != b"of another driver"


def test_a_folder_that_cannot_be_written_is_no_error(world, folder):
    (folder / f"{FILE}.kernels").mkdir()
    engine = start(folder)
    assert "each start compiles its kernels" in engine.name


# (what the code says, what a mistake would say): each must be noticed
MISTAKES = {
    "the cache comes after the context": (
        "        if not config.set_runtime_cache(self._cache):",
        "        self._engine.create_execution_context(config)\n        if not config.set_runtime_cache(self._cache):",
    ),
    "no kernels for exact shapes": ("KernelSpecializationStrategy.EAGER", "KernelSpecializationStrategy.LAZY"),
    "no CUDA graphs": ("CudaGraphStrategy.WHOLE_GRAPH_CAPTURE", "CudaGraphStrategy.DISABLED"),
    "shapes are not inferred": ("missing = self._context.infer_shapes()", "missing = []"),
    "the default stream": ("execute_async_v3(int(self.stream))", "execute_async_v3(0)"),
    "host memory": ("self.inputs[dtype]: batch.input_address", "self.inputs[dtype]: batch._host_input.ctypes.data + 1"),
    "the runtime goes before its engine": (
        "        self.inputs = self._check",
        "        loader.runtime = None\n        self.inputs = self._check",
    ),
    "one input without a shape": ("for name in self.inputs.values():", "for name in [*self.inputs.values()][:1]:"),
    "too small a buffer": ("shape = (max_batch, 3, height, width)", "shape = (1, 3, height, width)"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_stand_in_notices_mistakes(world, folder, gpu, mistake):
    right, wrong = MISTAKES[mistake]
    text = Path(execution.__file__).read_text()
    assert text.count(right) == 1
    module = types.ModuleType("edited_execution")
    sys.modules[module.__name__] = module
    try:
        exec(compile(text.replace(right, wrong), "edited_execution.py", "exec"), module.__dict__)
        from nudenet_steps.cuda import runtime

        with pytest.raises((AssertionError, ValueError, RuntimeError)):
            loader = module.Loader(sys.modules["tensorrt_rtx"])
            engine = module.Execution(loader, runtime.load(), b"an engine", LARGEST, CANVASES, folder / "kernels")
            engine.warm_up(LARGEST)
    finally:
        del sys.modules[module.__name__]


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        ("UNSUPPORTED_CC", r"this GPU, capability 9\.0.*--for sm90.*make plan.*--config-name cuda"),
        ("VERSION_MISMATCH", r"built by another version than .*--runtime rtx"),
        ("OLD_CUDA_DRIVER", "old_cuda_driver.*nvidia-smi"),
    ],
)
def test_an_engine_that_cannot_run_here_says_why(world, folder, gpu, bits, words):
    gpu.compute_capability = (9, 0)
    world.invalid_bits = int(getattr(rtx.EngineInvalidityDiagnostics, bits).value)
    with pytest.raises(EngineError, match=words):
        start(folder)


def test_what_the_library_says_is_passed_on(world, folder):
    world.deserializes = False
    with pytest.raises(EngineError, match=r"cannot load the engine on this GPU:\n  Version tag does not match"):
        start(folder)


def test_wrong_choices_say_what_to_do(world, folder, monkeypatch):
    with pytest.raises(EngineError, match=r"built in FP16, configured is 'INT8\+FP16'.*--precision INT8"):
        start(folder, precision="INT8+FP16")
    with pytest.raises(EngineError, match=r"batches of up to 3, max_batch_size is 8.*--batch-size 8"):
        start(folder, 8)
    for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EngineError, match=r"pip install -r requirements/rtx\.txt"):
        start(folder)
    (folder / f"{FILE}.json").write_text("{}")
    with pytest.raises(EngineError, match="passport"):
        start(folder)
    (folder / FILE).unlink()
    with pytest.raises(EngineError, match=r"is missing: python build/convert_to_tensorrt\.py --runtime rtx"):
        start(folder)


def test_the_real_library_refuses_without_a_gpu(folder, gpu):
    """The one call of the real runtime that needs no GPU: our file is not an engine."""
    with pytest.raises(EngineError, match="malformed_engine"):
        start(folder)
