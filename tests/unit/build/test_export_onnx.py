"""The exported graph gives what NudeNet's own graph gives on the same padded input."""

from __future__ import annotations

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import typer
from typer.testing import CliRunner

import export_onnx as export_command
from nudenet_build.graph import export as export_onnx
from nudenet_steps.preprocess.canvas import CANVASES

SIZES = [(180, 320), (320, 180), (320, 320)]


@pytest.fixture(scope="module")
def original() -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(export_onnx.find_source())


@pytest.fixture(scope="module", params=SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def exported(request) -> tuple[onnx.ModelProto, onnxruntime.InferenceSession]:
    model = export_onnx.build_model(export_onnx.find_source(), *request.param)
    return model, onnxruntime.InferenceSession(model.SerializeToString())


def pictures(data_folder, count: int, height: int, width: int) -> np.ndarray:
    """FP32 [count,3,height,width] of different real pictures, mirrored ones included."""
    files = sorted(data_folder.glob("*.jpg"))
    batch = []
    for i in range(count):
        rgb = cv2.imread(str(files[i % len(files)]))[..., ::-1]
        rgb = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
        batch.append(rgb[:, ::-1] if i >= len(files) else rgb)
    return np.ascontiguousarray(np.stack(batch).transpose(0, 3, 1, 2), np.float32) / 255


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("kind", ["pictures", "random"])
def test_equals_the_original_graph(original, exported, batch, kind, data_folder):
    model, session = exported
    height, width = (dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[2:])
    if kind == "pictures":
        images = pictures(data_folder, batch, height, width)
    else:
        images = np.random.default_rng(batch).random((batch, 3, height, width), np.float32)
    bottom, right = -height % 32, -width % 32
    padded = np.pad(images, ((0, 0), (0, 0), (0, bottom), (0, right)))
    raw = original.run(None, {"images": padded})[0].transpose(0, 2, 1)  # cx, cy, w, h, one confidence a class
    found = session.run(None, {"input": images})[0]

    centres, sizes, confidences = raw[..., :2], raw[..., 2:4], raw[..., 4:]
    assert found.shape == (batch, raw.shape[1], 6)
    np.testing.assert_allclose(found[..., :2], centres - sizes / 2, atol=1e-3)
    np.testing.assert_allclose(found[..., 2:4], centres + sizes / 2, atol=1e-3)
    np.testing.assert_allclose(found[..., 5], confidences.max(-1), atol=1e-5)
    ranked = np.sort(confidences, axis=-1)
    sure = (ranked[..., -1] > 1e-4) & (ranked[..., -1] - ranked[..., -2] > 1e-5)  # no tie within the error above
    assert (found[..., 4] == confidences.argmax(-1))[sure].all()


def test_graph_is_static_and_named(exported):
    model, _ = exported
    operators = {node.op_type for node in model.graph.node}
    assert not operators & {"Shape", "Range", "Expand", "ConstantOfShape", "Gather"}
    names = [node.name for node in model.graph.node]
    assert "" not in names
    assert len(set(names)) == len(names)
    assert sum(node.op_type == "Conv" for node in model.graph.node) == 63
    assert not any(node.op_type in ("Conv", "MatMul") for node in model.graph.node if node.name.startswith("decode/"))


def test_finds_the_face(onnx_path, data_folder):
    session = onnxruntime.InferenceSession(onnx_path)
    candidates = session.run(None, {"input": pictures(data_folder, 1, 180, 320)})[0][0]
    best = candidates[candidates[:, 5].argmax()]
    assert candidates.shape == (1260, 6)
    assert best[4] == 1  # FACE_FEMALE
    assert best[5] > 0.8
    assert 100 < best[:4].reshape(2, 2).mean(0)[0] < 180  # the face is left of the middle


@pytest.fixture(scope="module")
def dynamic():
    return export_onnx.build_dynamic_model(export_onnx.find_source())


@pytest.mark.parametrize("canvas", CANVASES)
def test_the_dynamic_graph_computes_what_the_static_ones_do_bit_by_bit(dynamic, canvas):
    pixels = np.random.default_rng(0).random((2, 3, *canvas), np.float32)
    static = export_onnx.build_model(export_onnx.find_source(), *canvas)
    found, expected = (
        onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"input": pixels})[0]
        for model in (dynamic, static)
    )
    np.testing.assert_array_equal(found, expected)


def test_the_dynamic_graph_leaves_batch_height_and_width_open(dynamic):
    dims = dynamic.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", 3, "height", "width"]
    assert not any(node.op_type in ("Conv", "MatMul") for node in dynamic.graph.node if node.name.startswith("decode/"))


@pytest.mark.parametrize(("height", "width"), [(0, 320), (180, 5000), (-1, 320)])
def test_refuses_a_size_out_of_range(height, width):
    with pytest.raises(export_onnx.ExportError, match=r"must be in 1..4096 pixels, got"):
        export_onnx.build_model(export_onnx.find_source(), height, width)


def test_refuses_another_graph(tmp_path):
    value = onnx.helper.make_tensor_value_info("x", 1, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value], [value])
    graph.output[0].name = "y"
    onnx.save(onnx.helper.make_model(graph), tmp_path / "other.onnx")
    with pytest.raises(export_onnx.ExportError, match="not NudeNet's 320n graph"):
        export_onnx.build_model(tmp_path / "other.onnx", 180, 320)


@pytest.mark.parametrize("name", ["model.onnx", "model.dynamic.onnx"])
def test_refuses_what_was_exported_already(onnx_path, name):
    with pytest.raises(export_onnx.ExportError, match="was exported already"):
        export_onnx.build_model(onnx_path.with_name(name), 180, 320)


def one_name_twice(network: onnx.ModelProto) -> onnx.ModelProto:
    """Valid, but the exporter finds its way by the names of the nodes."""
    last = next(node for node in network.graph.node if "/model.22/Concat_output_0" in node.output)
    network.graph.node[3].name = last.name
    return network


def half_a_head(network: onnx.ModelProto) -> onnx.ModelProto:
    """The classes come from something else than a convolution, as in a quantised network."""
    node = next(node for node in network.graph.node if "/model.22/Concat_output_0" in node.output)
    node.input[1] = node.input[0]
    convolution = next(n for n in network.graph.node if node.input[0] in n.output)
    convolution.output[0] = "renamed"
    network.graph.node.insert(
        list(network.graph.node).index(convolution) + 1, onnx.helper.make_node("Identity", ["renamed"], [node.input[0]])
    )
    del network.graph.value_info[:]
    return network


@pytest.mark.parametrize("change", [one_name_twice, half_a_head])
def test_refuses_a_network_that_only_looks_like_nudenets(tmp_path, change):
    onnx.save(change(onnx.load(export_onnx.find_source())), tmp_path / "other.onnx")
    with pytest.raises(export_onnx.ExportError, match=r"not NudeNet's 320n graph: .*leave out --source"):
        export_onnx.build_model(tmp_path / "other.onnx", 180, 320)


def run(*arguments: object):
    app = typer.Typer()
    app.command()(export_command.export)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_an_output_that_cannot_be_written(tmp_path):
    for output in ("/proc/x/model.onnx", tmp_path, "/"):
        result = run("--output", output)
        assert result.exit_code == 2, result.exception
        assert f"export_onnx: {output} " in result.output
    (tmp_path / "model.dynamic.onnx").mkdir()
    assert run("--output", tmp_path / "model.onnx").exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["model.dynamic.onnx"]


def test_a_disk_that_fills_up(tmp_path, monkeypatch):
    monkeypatch.setattr(export_onnx.Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    result = run("--output", tmp_path / "model.onnx")
    assert (result.exit_code, result.output) == (2, "export_onnx: disk full\n")


@pytest.mark.parametrize("name", ["model.onnx", "model.dynamic.onnx"])
def test_does_not_overwrite_its_source(tmp_path, name):
    source = tmp_path / name
    source.write_bytes(network := export_onnx.find_source().read_bytes())
    result = run("--source", source, "--output", tmp_path / "model.onnx")
    assert result.exit_code == 2
    assert "would be overwritten" in result.output
    assert source.read_bytes() == network
    assert list(tmp_path.iterdir()) == [source]


def test_command_line_names_what_is_missing_and_writes_nothing(tmp_path):
    result = run("--source", tmp_path / "none.onnx", "--output", tmp_path / "model.onnx")
    assert result.exit_code == 2
    assert "none.onnx" in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    monkeypatch.setattr(export_onnx.Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        export_onnx.write_graph(onnx.ModelProto(), path)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    assert path.read_bytes() == b"old"
