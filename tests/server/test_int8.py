"""The whole way of INT8 on a CPU: pictures -> calibration frames -> INT8 graph -> a server that answers with it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpc
import typer
from typer.testing import CliRunner

import accuracy
import collect_calibration_data
import precision
from container.repository import MODEL_REPOSITORY
from nudenet_build.evaluation.variants import variants
from nudenet_steps.engines import cpu_precision
from nudenet_tools.server import precision_times, tuning
from nudenet_tools.server.process import Options, Ports, Server


def run(command, *arguments: object, status: int = 0) -> str:
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.output
    return result.output


def detect(url: str, picture: bytes) -> tuple[int, np.ndarray]:
    with grpc.InferenceServerClient(url) as client:
        tensor = grpc.InferInput("image", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[picture]], np.object_))
        answer = client.infer("nudenet", [tensor])
    return int(answer.as_numpy("num_detections")[0, 0]), answer.as_numpy("detections")[0]


def test_from_pictures_to_a_server_on_the_int8_engine(server, onnx_path, data_folder: Path, tmp_path, astronaut):
    frames = tmp_path / "frames"
    frames.mkdir()
    for name in ("hopper.jpg", "cameraman.jpg"):  # not the picture that is asked about below
        for i, (_, data) in enumerate(variants((data_folder / name).read_bytes(), name, 40)):
            (frames / f"{i}_{name}").write_bytes(data)
    models = tmp_path / "model_repository"
    shutil.copytree(MODEL_REPOSITORY, models, ignore=shutil.ignore_patterns("*.plan*", "*.int8*", "__pycache__"))
    calibration, graph = tmp_path / "calib_data.npy", models / "nudenet_trt" / "1" / "model.dynamic.onnx"
    run(collect_calibration_data.main, frames, "--output", calibration, "--model", graph)
    run(precision.main, "--precision", "INT8", "--calibration-data", calibration, "--onnx", graph)

    graph = graph.with_name(cpu_precision.INT8_GRAPH)
    judged = run(
        accuracy.main,
        "--record-int8",
        "--images",
        frames,
        "--limit",
        8,
        "--model",
        graph.parent / "model.dynamic.onnx",
        status=1,
    )
    assert "auto does not serve it" in judged, "a handful of detections is no evidence"
    assert precision_times.ensure(graph.parent, 2, pytest.fail).reason in judged  # and is no reason to measure
    cpu_precision.write_record(graph, f1=0.97, goal=0.95, detections=213, pictures=486)
    said: list[str] = []
    key = cpu_precision.times_key(graph)
    for again in (False, False, True):
        choice = precision_times.ensure(graph.parent, 2, said.append, again=again)
        times = cpu_precision.read_times(graph, key)
        assert len(times) == 2
        assert 0 < times["INT8"] < 1000
        assert f"INT8 {times['INT8']:.2f} ms a picture" in choice.reason
    assert len(said) == 2, "what is known is not measured again unless asked"

    cpu_precision.write_times(graph, key, dict.fromkeys(times, 9.0) | {"INT8": 4.0})  # whatever this CPU thinks of it
    options = Options(ports=Ports.free(), model_repository=models, tuning=tuning.for_cpu(2))
    with Server(options) as on_int8:
        count, found = detect(on_int8.grpc_url, astronaut)
        assert on_int8.engine().endswith(", INT8")
        assert "INT8; auto: INT8 4.00 ms a picture" in on_int8.engine_and_reason()
    expected_count, expected = detect(server.grpc_url, astronaut)
    assert count == expected_count == 1
    assert found[0, 4] == expected[0, 4]
    np.testing.assert_allclose(found[0, :4], expected[0, :4], atol=12)  # source pixels, 4 of them per model pixel
    assert 0 < abs(found[0, 5] - expected[0, 5]) < 0.1  # close, but not the very same engine
