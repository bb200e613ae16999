"""FP16 and INT8 graphs: structure that TensorRT and OpenVINO accept, and detections that stay."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from typer.testing import CliRunner

import precision as command
from nudenet_build.evaluation.engines import OnnxRuntime, openvino_engine
from nudenet_build.evaluation.report import agree
from nudenet_build.evaluation.variants import variants
from nudenet_build.graph import precision
from nudenet_build.graph.precision import Precision, PrecisionError
from nudenet_steps.pipeline import Preprocessor
from nudenet_steps.postprocess import nms
from nudenet_steps.preprocess.canvas import SPECIFIED
from nudenet_steps.preprocess.letterbox import TO_UNIT

FRAMES = 96


@pytest.fixture(scope="session")
def frames(data_folder) -> np.ndarray:
    """FP32 [96,3,180,320]: variants of two portraits and a picture without people."""
    preprocess = Preprocessor((SPECIFIED,))
    files = [data_folder / name for name in ("astronaut_720p.jpg", "hopper.jpg", "coffee.jpg")]
    pictures = [data for path in files for _, data in variants(path.read_bytes(), path.name, FRAMES // 3)]
    return np.stack([preprocess(data)[0] * TO_UNIT for data in pictures])


@pytest.fixture(scope="session")
def calibration_file(frames, tmp_path_factory):
    path = tmp_path_factory.mktemp("calibration") / "calib_data.npy"
    np.save(path, frames)
    return path


@pytest.fixture(scope="module")
def fp32(onnx_path) -> onnx.ModelProto:
    return onnx.load(onnx_path)


@pytest.fixture(scope="module")
def int8_all(onnx_path, frames) -> onnx.ModelProto:
    return precision.to_int8(onnx_path, frames, keep=())


def infer(model: onnx.ModelProto, batch: np.ndarray) -> np.ndarray:
    return OnnxRuntime(model.SerializeToString())(batch)


def detections(candidates: np.ndarray) -> list[np.ndarray]:
    geometry = np.array([1, 1, 320, 180], np.float32)
    return [nms.detect(rows, geometry, nms.Settings()) for rows in candidates]


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    values = [*model.graph.value_info, *model.graph.input, *model.graph.output]
    return {value.name: value.type.tensor_type.elem_type for value in values}


def assert_fp32_around_fp16(model: onnx.ModelProto) -> None:
    """Input, output and decode FP32, the convolutions' outputs FP16, names unique, checker content."""
    onnx.checker.check_model(model, full_check=True)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    types = element_types(model)
    assert types["input"] == types["output"] == onnx.TensorProto.FLOAT
    decode = precision.decode_names(model.graph)
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    in_decode = {types[name] for node in model.graph.node if node.name in decode for name in node.output}
    assert in_decode & set(floats) == {onnx.TensorProto.FLOAT}
    assert {types[n.output[0]] for n in model.graph.node if n.op_type == "Conv"} == {onnx.TensorProto.FLOAT16}


def test_fp16_structure(fp32):
    before = fp32.SerializeToString()
    model = precision.to_fp16(fp32)
    assert fp32.SerializeToString() == before
    assert_fp32_around_fp16(model)
    # In, three scales out, and the class id's own.
    assert precision.summarise(model).casts == 5


def test_fp16_keeps_boxes_and_confidences(fp32, frames):
    expected, found = infer(fp32, frames[:8]), infer(precision.to_fp16(fp32), frames[:8])
    real = expected[..., 5] > 0.1
    assert real.any()
    assert np.abs(found - expected)[..., :4][real].max() < 0.25
    assert np.abs(found - expected)[..., 5].max() < 0.01


def test_fp16_twice_is_refused(fp32):
    with pytest.raises(PrecisionError, match="FP16 constants already"):
        precision.to_fp16(precision.to_fp16(fp32))


def test_fp16_refuses_a_weight_it_cannot_hold(fp32):
    model = onnx.ModelProto()
    model.CopyFrom(fp32)
    weight = next(t for t in model.graph.initializer if t.name.endswith("conv.weight"))
    values = onnx.numpy_helper.to_array(weight).copy()
    values.flat[0] = 1e5
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    with pytest.raises(PrecisionError, match="beyond FP16"):
        precision.to_fp16(model)


def test_int8_of_all_layers_is_what_tensorrt_accepts(int8_all):
    onnx.checker.check_model(int8_all, full_check=True)
    summary = precision.summarise(int8_all)
    assert (summary.convolutions, summary.quantised_convolutions) == (63, 63)
    assert (summary.nonzero_zero_points, summary.bias_dequantizers) == (0, 0)
    decode = precision.decode_names(int8_all.graph)
    quantised = {n.output[0] for n in int8_all.graph.node if n.op_type == "DequantizeLinear"}
    assert not any(name in quantised for node in int8_all.graph.node if node.name in decode for name in node.input)
    assert {opset.domain for opset in int8_all.opset_import} == {""}
    assert int8_all.opset_import[0].version == 19


def test_int8_weights_are_per_channel(int8_all):
    constants = {tensor.name: tensor for tensor in int8_all.graph.initializer}
    weight_scales = [
        constants[node.input[1]]
        for node in int8_all.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] in constants
    ]
    assert len(weight_scales) == 63
    assert all(len(scale.dims) == 1 for scale in weight_scales)


def test_mixed_graph_has_fp16_scales_above_zero(int8_all):
    model = precision.to_fp16(int8_all)
    assert_fp32_around_fp16(model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    scales = [constants[n.input[1]] for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert {scale.data_type for scale in scales} == {onnx.TensorProto.FLOAT16}
    summary = precision.summarise(model)
    assert summary.smallest_scale > 0
    assert (summary.quantised_convolutions, summary.nonzero_zero_points, summary.casts) == (63, 0, 5)


def test_a_scale_too_small_for_fp16_does_not_become_zero(int8_all):
    model = onnx.ModelProto()
    model.CopyFrom(int8_all)
    name = next(n.input[1] for n in model.graph.node if n.op_type == "QuantizeLinear")
    scale = next(t for t in model.graph.initializer if t.name == name)
    scale.CopyFrom(onnx.numpy_helper.from_array(np.full(scale.dims, 1e-12, np.float32), name))
    assert precision.summarise(precision.to_fp16(model)).smallest_scale > 0


def test_kept_groups_are_not_quantised(onnx_path, frames):
    model = precision.to_int8(onnx_path, frames[:8], keep=("model.22/cv3.0",))
    assert precision.summarise(model).quantised_convolutions == 60
    by_output = {output: node for node in model.graph.node for output in node.output}
    kept = [n for n in model.graph.node if n.op_type == "Conv" and n.name.startswith("/model.22/cv3.0/")]
    assert len(kept) == 3
    assert all(node.input[1] not in by_output for node in kept)


@pytest.mark.parametrize("group", ["model.23", "model.2x", "cv3"])
def test_unknown_groups_are_refused(onnx_path, frames, group):
    with pytest.raises(PrecisionError, match="no layer group"):
        precision.to_int8(onnx_path, frames[:1], keep=(group,))


def test_groups_do_not_match_by_half_a_number():
    assert precision.in_group("/model.2/cv1/conv/Conv", ["model.2"])
    assert not precision.in_group("/model.22/cv2.0/Conv", ["model.2"])


def test_served_int8_detects_what_fp32_does_on_openvino(onnx_path, frames, calibration_file, tmp_path, fp32):
    """Also the guard against signed activations, with which OpenVINO finds nothing at all."""
    path = tmp_path / "model.int8.onnx"
    onnx.save(precision.convert(Precision.INT8, onnx_path, calibration_file), path)
    engine = openvino_engine(path, "INT8", [SPECIFIED])
    expected = detections(infer(fp32, frames))
    found = detections(engine(frames))
    agreement = agree(expected, found, 0.25)
    assert agreement.reference >= 30
    assert agreement.f1 > 0.9


def test_command_line_writes_the_served_file(onnx_path, calibration_file, tmp_path):
    source = tmp_path / "model.onnx"
    source.write_bytes(onnx_path.read_bytes())
    arguments = ["--precision", "INT8", "--calibration-data", str(calibration_file), "--onnx", str(source)]
    result = run(arguments)
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.int8.onnx", "model.onnx"]
    onnxruntime.InferenceSession(tmp_path / "model.int8.onnx")


def test_command_line_int8_without_calibration_is_an_error_and_no_fallback(onnx_path, tmp_path):
    source = tmp_path / "model.onnx"
    source.write_bytes(onnx_path.read_bytes())
    result = run(["--precision", "INT8", "--onnx", str(source)])
    assert result.exit_code == 2
    assert "--calibration-data" in result.output
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("output", ["model.onnx", "link.onnx", "../model.onnx"])
def test_command_line_does_not_overwrite_its_input(onnx_path, tmp_path, monkeypatch, output):
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    content = onnx_path.read_bytes()
    source = folder / "model.onnx"
    source.write_bytes(content)
    (folder / "link.onnx").symlink_to(source)
    (tmp_path / "model.onnx").hardlink_to(source)
    result = run(["--precision", "FP16", "--onnx", str(source), "--output", output])
    assert result.exit_code == 2
    assert f"{output} is what this command reads" in result.output
    assert source.read_bytes() == content


def test_command_line_refuses_an_output_before_it_reads_anything(tmp_path):
    for output in (tmp_path, "/proc/x/model.onnx"):
        result = run(["--precision", "FP16", "--onnx", "nowhere.onnx", "--output", str(output)])
        assert result.exit_code == 2, result.exception
        assert f"precision: {output} " in result.output
    assert list(tmp_path.iterdir()) == []


def test_what_onnx_refuses_after_converting_is_an_error(fp32):
    model = onnx.ModelProto()
    model.CopyFrom(fp32)
    next(node for node in model.graph.node if node.op_type == "Conv").input[1] = "nowhere"
    with pytest.raises(PrecisionError, match="cannot be converted"):
        precision.to_fp16(model)


def run(arguments: list[str]):
    import typer

    app = typer.Typer()
    app.command()(command.main)
    return CliRunner().invoke(app, arguments)


def small(value: float = 0.5, count: int = 64, dtype=np.float32, shape=(3, 6, 8)) -> np.ndarray:
    return np.full((count, *shape), value, dtype)


def spoiled(value: float) -> np.ndarray:
    frames = small()
    frames[40, 1, 2, 3] = value
    return frames


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (small(127.0), "0..255 pixels, the network takes 0..1; divide by 255"),
        (small(127, dtype=np.uint8), "holds uint8, expected float32"),
        (small(0.5, dtype=np.float64), "holds float64, expected float32"),
        (small(shape=(3, 8, 6)), r"shape \[64, 3, 8, 6\], expected \[N,3,6,8\]"),
        (small(shape=(6, 8)), "expected "),
        (small(count=63), "63 frames, at least 64"),
        (small(count=0), "0 frames"),
        (spoiled(np.nan), "not finite"),
        (spoiled(np.inf), "not finite"),
        (spoiled(-0.5), r"spans -0.5..0.5, expected RGB in \[0,1\]"),
        (spoiled(1.5), "spans 0.5..1.5, expected RGB"),
        (small(0.5 / 255), "divided by 255 twice"),
    ],
)
def test_unfit_calibration_data_is_named(tmp_path, frames, message):
    path = tmp_path / "calib_data.npy"
    np.save(path, frames)
    with pytest.raises(PrecisionError, match=message):
        precision.load_calibration(path, 6, 8)


def test_calibration_data_that_is_no_array(tmp_path):
    path = tmp_path / "calib_data.npy"
    with pytest.raises(PrecisionError, match="no calibration data"):
        precision.load_calibration(path, 6, 8)
    path.write_bytes(b"PK not numpy")
    with pytest.raises(PrecisionError, match=r"not a whole \.npy file"):
        precision.load_calibration(path, 6, 8)
    np.save(path, small())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(PrecisionError, match=r"not a whole \.npy file"):
        precision.load_calibration(path, 6, 8)


def test_good_calibration_data_is_mapped_not_read(tmp_path):
    path = tmp_path / "calib_data.npy"
    np.save(path, small())
    assert isinstance(precision.load_calibration(path, 6, 8), np.memmap)
