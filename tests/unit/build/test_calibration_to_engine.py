"""Calibration end to end: a ten-minute video and a camera become frames, the frames an INT8 engine."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

import collect_calibration_data
import convert_to_tensorrt
from container import plan_passport
from helpers.cameras import mjpeg_camera
from nudenet_build.graph.precision import load_calibration

MINUTES, FPS = 10, 2


def run(command, *arguments: object):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def video(data_folder: Path, tmp_path: Path) -> Path:
    """Ten minutes, a scene of 30 seconds after the other, ever brighter."""
    scenes = [Image.open(data_folder / name).convert("RGB").resize((640, 360)) for name in ("hopper.jpg", "coffee.jpg")]
    path = tmp_path / "video.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for i in range(MINUTES * 60 * FPS):
            scene = i // (30 * FPS)
            pixels = np.asarray(scenes[scene % 2], np.float32) * (0.3 + 0.7 * i / (MINUTES * 60 * FPS))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels.astype(np.uint8), format="rgb24")))
        container.mux(stream.encode())
    return path


def test_ten_minutes_of_video_and_a_camera_become_an_int8_engine(video, data_folder, tmp_path, onnx_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    frames, engine = tmp_path / "calib_data.npy", tmp_path / "model.rtx.engine"
    with mjpeg_camera((data_folder / "astronaut_720p.jpg").read_bytes(), 100, 100) as camera:
        collected = run(
            collect_calibration_data.main,
            *(video, camera, "--output", frames, "--frames", 72, "--interval", 0, "--least-difference", 0),
        )
    assert collected.exit_code == 0, collected.output
    assert "looked at 72 frames: 72 kept" in collected.output
    pixels = load_calibration(frames, 180, 320)
    assert len(np.unique(pixels.mean(axis=(1, 2, 3)).round(3))) >= 30, "frames from all over the video"
    converted = run(
        convert_to_tensorrt.convert,
        *("--precision", "INT8", "--runtime", "rtx", "--calibration-data", frames, "--onnx", onnx_path),
        *("--output", engine),
    )
    assert converted.exit_code == 0, converted.output
    assert "warning" not in converted.output
    passport = plan_passport.read(engine)
    assert (passport.precision, passport.convolutions) == ("INT8+FP16", {"INT8": 23, "FP16": 40})
    assert engine.stat().st_size > 5 << 20
