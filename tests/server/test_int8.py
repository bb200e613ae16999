"""The whole way of INT8 on a CPU: pictures -> calibration frames -> INT8 graph -> a server that answers with it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import tritonclient.grpc as grpc
import typer
from typer.testing import CliRunner

import collect_calibration_data
import precision
from container.repository import MODEL_REPOSITORY
from nudenet_build.evaluation.variants import variants
from nudenet_tools.server import tuning
from nudenet_tools.server.process import Options, Ports, Server


def run(command, *arguments: object) -> str:
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
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

    lines: list[str] = []
    options = Options(
        ports=Ports.free(), model_repository=models, tuning=tuning.for_cpu(2, "INT8"), on_log=lines.append
    )
    with Server(options) as on_int8:
        count, found = detect(on_int8.grpc_url, astronaut)
    assert any("INT8" in line for line in lines if "nudenet_trt" in line)
    expected_count, expected = detect(server.grpc_url, astronaut)
    assert count == expected_count == 1
    assert found[0, 4] == expected[0, 4]
    np.testing.assert_allclose(found[0, :4], expected[0, :4], atol=12)  # source pixels, 4 of them per model pixel
    assert 0 < abs(found[0, 5] - expected[0, 5]) < 0.1  # close, but not the very same engine
