"""Engine and `cuda/batch.py`: pictures reach the GPU in order, wherever they lie. GPU memory is host memory here."""

from __future__ import annotations

import mmap
import os
import sys
import types
from pathlib import Path

import numpy as np
import onnx
import pytest

from helpers.cuda_on_host import CudaOnHost, array_at
from nudenet_steps.cuda import dlpack
from nudenet_steps.cuda.runtime import CudaError
from nudenet_steps.engines import EngineError, onnx_graphs
from nudenet_steps.engines.onnxruntime_cuda import CudaEngine
from nudenet_steps.preprocess.canvas import Canvas

SHAPE, CANDIDATES = (3, 4, 5), 7
CANVASES = (Canvas(4, 5), Canvas(5, 4))


class Session:
    """ONNX Runtime's session; candidate k of a picture is k times its mean."""

    def __init__(self, content, options, providers):
        self.providers, Session.options = [name for name, _ in providers], providers[0][1]
        self.source = onnx.load_from_string(content).graph.input[0]

    def get_providers(self):
        return self.providers

    def get_inputs(self):
        tensor = self.source.type.tensor_type
        kind = {1: "tensor(float)", 2: "tensor(uint8)"}[tensor.elem_type]
        shape = ["batch", *(dim.dim_value for dim in tensor.shape.dim[1:])]
        return [types.SimpleNamespace(name=self.source.name, type=kind, shape=shape)]

    def get_outputs(self):
        return [types.SimpleNamespace(shape=["batch", CANDIDATES])]

    def io_binding(self):
        return Binding()

    def run_with_iobinding(self, binding, options):
        binding.output[...] = expected(binding.input)


class Binding:
    def bind_input(self, name, device, index, dtype, shape, address):
        self.input = array_at(address, shape, dtype)

    def bind_output(self, name, device, index, dtype, shape, address):
        self.output = array_at(address, shape, dtype)


class RunOptions:
    def add_run_config_entry(self, key, value):
        pass


@pytest.fixture
def runtime(monkeypatch):
    runtime = CudaOnHost()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", runtime)
    onnxruntime = types.ModuleType("onnxruntime")
    onnxruntime.__version__ = "1"
    onnxruntime.get_available_providers = lambda: ["CUDAExecutionProvider"]
    onnxruntime.SessionOptions, onnxruntime.RunOptions = types.SimpleNamespace, RunOptions
    onnxruntime.InferenceSession = Session
    monkeypatch.setitem(sys.modules, "onnxruntime", onnxruntime)
    return runtime


@pytest.fixture
def engine(runtime, tmp_path, monkeypatch):
    """Serves two canvases of a graph that hands its input through."""

    def fix_canvas(model, canvas):  # the real one runs a real session, see test_onnx_graphs.py
        fixed = onnx.ModelProto()
        fixed.CopyFrom(model)
        for dim, side in zip(fixed.graph.input[0].type.tensor_type.shape.dim[2:], canvas, strict=True):
            dim.dim_value = side
        return fixed

    monkeypatch.setattr(onnx_graphs, "fix_canvas", fix_canvas)
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 3, "height", "width"])
        for name in ("input", "output")
    ]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["input"], ["output"])], "g", *[[v] for v in values]
    )
    for name in ("model.fp16.onnx", "model.dynamic.onnx"):
        onnx.save(onnx.helper.make_model(graph), tmp_path / name)
    engine = CudaEngine(tmp_path, 8, canvases=CANVASES)
    runtime.copies.clear()
    return engine


@pytest.fixture(params=[np.uint8, np.float32], ids=["pixels", "input"])
def pictures(request):
    return np.random.default_rng(0).integers(0, 256, (8, *SHAPE)).astype(request.param)


@pytest.fixture
def shared(pictures):
    """The pictures in a mapping of /dev/shm."""
    path = Path("/dev/shm") / f"nudenet-test-cuda-engine-{os.getpid()}"
    path.write_bytes(bytes(pictures.nbytes))
    with path.open("r+b") as file:
        memory = np.frombuffer(mmap.mmap(file.fileno(), pictures.nbytes), pictures.dtype).reshape(pictures.shape)
    path.unlink()
    np.copyto(memory, pictures)
    return memory


def expected(pictures):
    return pictures.mean(axis=(1, 2, 3), dtype=np.float32)[:, None] * np.arange(CANDIDATES)


def test_parts_are_put_together_in_order_wherever_they_lie(engine, pictures, shared):
    on_gpu = dlpack.GpuTensor(dlpack.export(pictures[3:].ctypes.data, (2, *SHAPE), pictures.dtype, 0))
    reversed_rows = pictures[5:8, :, ::-1].copy()[:, :, ::-1]  # not contiguous
    found = engine.infer([shared[:1], pictures[1:3], on_gpu, reversed_rows])
    np.testing.assert_allclose(found, expected(pictures), rtol=1e-5)


def test_shared_memory_is_read_in_place_and_other_memory_is_not(engine, runtime, pictures, shared):
    engine.infer([shared[2:3], pictures[:1]])
    (first, size, kind), (second, _, _), (_, back, _) = runtime.copies
    assert (first, size, kind) == (shared[2:].ctypes.data, pictures[0].nbytes, "HostToDevice")
    assert second != pictures.ctypes.data
    assert back == 2 * CANDIDATES * 4


def test_tensors_on_the_gpu_stay_there(engine, runtime, pictures):
    engine.infer([dlpack.GpuTensor(dlpack.export(pictures.ctypes.data, pictures.shape, pictures.dtype, 0))])
    assert [kind for _, _, kind in runtime.copies] == ["DeviceToDevice", "DeviceToHost"]


def test_canvases_do_not_mix(engine, pictures):
    turned = np.ascontiguousarray(pictures.transpose(0, 1, 3, 2))[::-1].copy()
    first, second = engine.infer([pictures[:2]]), engine.infer([turned[:3]])
    np.testing.assert_allclose(first, expected(pictures[:2]), rtol=1e-5)
    np.testing.assert_allclose(second, expected(turned[:3]), rtol=1e-5)


@pytest.mark.parametrize("height, width", [(4, 8), (9, 5), (9, 8)])
def test_what_is_cut_out_of_larger_pictures_arrives_whole(engine, pictures, height, width):
    larger = np.full((8, 3, height, width), 7, pictures.dtype)
    larger[:, :, :4, :5] = pictures
    on_gpu = dlpack.GpuTensor(dlpack.export(larger.ctypes.data, larger.shape, larger.dtype, 0))
    parts = [one[i:j, :, :4, :5] for one, i, j in ((on_gpu, 0, 1), (larger, 1, 2), (on_gpu, 2, 4), (on_gpu, 7, 8))]
    np.testing.assert_allclose(engine.infer(parts), expected(pictures[[0, 1, 2, 3, 7]]), rtol=1e-5)


def test_only_fp32_gives_up_tensor_cores(engine, tmp_path):
    assert Session.options["use_tf32"] == "1"  # 0 would take them from FP16, too
    assert "fuse_conv_bias" not in Session.options  # the graphs hang with both on an H100
    CudaEngine(tmp_path, 1, "FP32", canvases=CANVASES)
    assert Session.options["use_tf32"] == "0"


def test_a_cuda_error_says_so(engine, runtime, pictures):
    runtime.status = 700
    with pytest.raises(CudaError, match="cudaMemcpyAsync failed with 700"):
        engine.infer([pictures[:1]])


@pytest.mark.parametrize(
    ("precision", "message"), [("INT8", "must be one of"), ("FP32", "model.dynamic.onnx is missing")]
)
def test_wrong_choices_say_what_to_do(runtime, tmp_path, precision, message):
    with pytest.raises(EngineError, match=message):
        CudaEngine(tmp_path, 8, precision)


def test_take_views_host_memory_and_addresses_gpu_memory(pictures):
    class Tensor:
        def __init__(self, on_gpu):
            self.on_gpu = on_gpu

        def is_cpu(self):
            return not self.on_gpu

        def to_dlpack(self):
            return dlpack.export(pictures.ctypes.data, pictures.shape, pictures.dtype, 0)

        def __dlpack__(self):
            return pictures.__dlpack__()

        def __dlpack_device__(self):
            return pictures.__dlpack_device__()

    assert CudaEngine.take(Tensor(False)).ctypes.data == pictures.ctypes.data
    on_gpu = CudaEngine.take(Tensor(True))
    assert (on_gpu.address, len(on_gpu)) == (pictures.ctypes.data, 8)
