"""Damaged and foreign graphs: every command refuses them in one line and writes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import typer
from typer.testing import CliRunner

import accuracy
import collect_calibration_data
import convert_to_tensorrt
import export_onnx
import precision

DATA = Path(__file__).parents[2] / "data"
# How each command is given its graph.
COMMANDS: dict[str, tuple[Callable, list[str]]] = {
    "export": (export_onnx.export, ["--output", "out/model.onnx", "--source"]),
    "FP16": (precision.main, ["--precision", "FP16", "--output", "out/model.onnx", "--onnx"]),
    "INT8": (
        precision.main,
        ["--precision", "INT8", "--calibration-data", "calib.npy", "--output", "out/model.onnx", "--onnx"],
    ),
    "engine for RTX": (
        convert_to_tensorrt.convert,
        ["--runtime", "rtx", "--precision", "FP32", "--output", "out/model.rtx.engine", "--onnx"],
    ),
    "plan": (  # FP32: the graph itself is compiled
        convert_to_tensorrt.convert,
        ["--runtime", "tensorrt", "--precision", "FP32", "--output", "out/model.plan", "--onnx"],
    ),
    "calibration": (
        collect_calibration_data.main,
        [str(DATA / "cat.jpg"), "--output", "out/calib_data.npy", "--model"],
    ),
    "accuracy": (accuracy.main, ["--images", str(DATA / "cat.jpg"), "--json", "out/figures.json", "--model"]),
}


def text(graph: Path) -> None:
    graph.write_text("not a graph at all")


def empty(graph: Path) -> None:
    graph.write_bytes(b"")


def cut(graph: Path) -> None:
    graph.write_bytes(graph.read_bytes()[:100_000])


def weights_elsewhere(graph: Path) -> None:
    model = onnx.load(graph)
    onnx.save(model, graph, save_as_external_data=True, location="weights.bin")
    (graph.parent / "weights.bin").unlink()


def name_without_text(graph: Path) -> None:
    graph.write_bytes(graph.read_bytes().replace(b"/model.0/act/Sigmoid", b"/model.0/act/\xffigmoid"))


def two_producers(graph: Path) -> None:
    """Reads well as protobuf; only ONNX's own check finds it."""
    model = onnx.load(graph)
    model.graph.node[1].output[0] = model.graph.node[0].output[0]
    onnx.save(model, graph)


def foreign(graph: Path) -> None:
    values = [onnx.helper.make_tensor_value_info(name, 1, [1]) for name in "xy"]
    nodes = [onnx.helper.make_node("Identity", ["x"], ["y"])]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", values[:1], values[1:]))
    onnx.save(model, graph)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("damage", [text, empty, cut, weights_elsewhere, name_without_text, two_producers, foreign])
def test_what_is_no_such_graph_is_refused(onnx_path, tmp_path, monkeypatch, command, damage) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    np.save("calib.npy", np.full((64, 3, 180, 320), 0.5, np.float32))
    graph = tmp_path / "graph.onnx"
    graph.write_bytes(onnx_path.read_bytes())
    damage(graph)
    run, arguments = COMMANDS[command]
    app = typer.Typer()
    app.command()(run)
    result = CliRunner().invoke(app, [*arguments, "graph.onnx"])
    assert result.exit_code == 2, result.exception
    output = " ".join(result.output.split())
    assert "graph.onnx is not a whole ONNX graph (" in output or damage is foreign
    assert "leave out --source" in output if command == "export" else "python build/export_onnx.py" in output
    assert not (tmp_path / "out").exists()
