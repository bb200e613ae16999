"""Calibration frames: what the server's preprocessing makes of them, from every kind of source, resumable."""

from __future__ import annotations

import http.server
import json
import os
import socket
import threading
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import simplejpeg
import typer
from PIL import Image
from typer.testing import CliRunner

import collect_calibration_data
from collect_calibration_data import warnings
from helpers import hostile, recordings
from nudenet_build.calibration import calibration_file, frames
from nudenet_build.graph.precision import load_calibration
from nudenet_build.jpeg_files import encode_jpeg
from nudenet_steps.preprocess import jpeg, letterbox
from nudenet_steps.preprocess.canvas import Canvas

SHAPE = (3, 180, 320)


def run(*arguments: object):
    app = typer.Typer()
    app.command()(collect_calibration_data.main)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Two seconds, 25 frames a second, each frame as bright as its number."""
    path = tmp_path_factory.mktemp("video") / "ramp.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for i in range(50):
            frame = av.VideoFrame.from_ndarray(np.full((360, 640, 3), 20 + 4 * i, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_alpha_lies_on_white_also_behind_a_jump(tmp_path):
    """As the stream tool and players see it; FFmpeg's own decoders see black."""
    alpha = np.asarray(hostile.photo(96, 64, "L"))
    path = recordings.record_alpha(tmp_path / "a.webm", alpha, 12, rate=1)
    found = list(frames.Video(str(path), 12.0, 1.0).read(2, frozenset()))
    assert float(found[1].key) > frames.SEEK_AHEAD
    for frame in found:
        assert np.abs(simplejpeg.decode_jpeg(frame.data).mean(2) - (255 - alpha)).mean() < 8


def test_frames_are_what_the_server_feeds_its_detector(data_folder, tmp_path, onnx_path):
    output = tmp_path / "calib_data.npy"
    result = run(data_folder / "*.jpg", "--output", output, "--model", onnx_path)
    assert result.exit_code == 0, result.output
    collected = load_calibration(output, 180, 320, minimum=6)
    files = sorted(data_folder.glob("*.jpg"))
    assert len(collected) == len(files)
    for path, found in zip(files, collected, strict=True):
        # The steps spelled out, so that a change of the shared helper shows.
        header = jpeg.read_header(path.read_bytes())
        box = letterbox.fit(*header.upright_size, Canvas(180, 320))
        expected = np.empty(SHAPE, np.float32)
        pixels = jpeg.decode(path.read_bytes(), header, box.width, box.height)
        letterbox.Writer().write(pixels, box, expected)
        np.testing.assert_array_equal(found, expected)
    assert "FACE_FEMALE" in result.output
    assert "only 6 frames" in result.output


def test_leaves_only_the_finished_file(data_folder, tmp_path, onnx_path):
    run(data_folder / "*.jpg", "--output", tmp_path / "c.npy")
    assert [p.name for p in tmp_path.iterdir()] == ["c.npy"]


def test_near_duplicates_are_dropped(data_folder, tmp_path, onnx_path):
    picture = Image.open(data_folder / "astronaut_720p.jpg")
    for quality in (60, 75, 90):
        picture.save(tmp_path / f"q{quality}.jpg", quality=quality)
    picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "mirrored.jpg")
    run(tmp_path, "--output", tmp_path / "c.npy")
    assert len(np.load(tmp_path / "c.npy")) == 2
    run(tmp_path, "--output", tmp_path / "c.npy", "--least-difference", 0)
    assert len(np.load(tmp_path / "c.npy")) == 4


def test_other_pictures_and_broken_ones(data_folder, tmp_path, onnx_path):
    Image.open(data_folder / "hopper.jpg").save(tmp_path / "a.png")
    whole = (data_folder / "cat.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "fake.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("not looked at")
    result = run(tmp_path, "--output", tmp_path / "out" / "c.npy")
    assert result.exit_code == 0, result.output
    assert len(np.load(tmp_path / "out" / "c.npy")) == 1
    assert "3 frames: 1 kept, 0 near-duplicates, 2 refused" in result.output
    for name in ("cut.jpg", "fake.png"):
        assert f"refused: {tmp_path / name}: " in result.output


def test_pictures_are_converted_as_the_client_converts_them(data_folder, tmp_path, onnx_path):
    """16 bits a colour are scaled, transparency is white, and an odd eXIf chunk is that file's trouble at most."""
    grey = np.asarray(Image.open(data_folder / "hopper.jpg").convert("L"))
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(tmp_path / "nothing.png")
    Image.open(data_folder / "cat.jpg").save(tmp_path / "odd.png", exif=b"no TIFF")
    result = run(tmp_path, "--output", tmp_path / "c.npy")
    assert result.exit_code == 0, result.output
    found = np.load(tmp_path / "c.npy").reshape(3, -1)
    assert found[0].max() > 2 * found[0].mean() > 0.2  # neither white nor black
    assert found[1].max() == 1  # drawn on white


def test_video_is_sampled_evenly(video, tmp_path, onnx_path):
    run(video, "--output", tmp_path / "c.npy", "--frames", 5, "--model", onnx_path)
    brightness = np.load(tmp_path / "c.npy").mean(axis=(1, 2, 3)) * 255
    np.testing.assert_allclose(brightness, [20 + 4 * i for i in (5, 15, 25, 35, 45)], atol=4)


def test_names_and_files_that_are_odd_stop_nothing(video, data_folder, tmp_path, onnx_path):
    folder = tmp_path / "holiday [2019]"
    folder.mkdir()
    (folder / "12:30.mp4").write_bytes(video.read_bytes())  # no protocol
    (folder / "no video.mp4").write_bytes(b"no video")
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jpg")).write_bytes((data_folder / "cat.jpg").read_bytes())
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.mp4")).write_bytes(video.read_bytes())
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe8.png")).write_bytes(b"no picture")
    result = run(folder, "--output", tmp_path / "c.npy", "--frames", 8)
    assert result.exit_code == 0, result.output
    assert "2 refused" in result.output
    for name in ("no video.mp4: not a readable video", "caf%E8.png: "):
        assert name in result.output


def test_credentials_of_a_camera_are_neither_shown_nor_kept(tmp_path, onnx_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://user:secret0@127.0.0.1:{closed.getsockname()[1]}/snap?user=admin&pwd=secret1"
        result = run(address, "--output", tmp_path / "c.npy")
    assert result.exit_code == 2
    assert "Connection refused" in result.output
    texts = [result.output, *(path.read_bytes().decode(errors="replace") for path in tmp_path.iterdir())]
    assert [text for text in texts if "secret" in text] == []


def test_camera_stream(data_folder, tmp_path, onnx_path):
    pictures = [(data_folder / name).read_bytes() for name in ("astronaut_720p.jpg", "rocket.jpg")]
    pictures[1] = encode_jpeg(cv2.resize(jpeg_pixels(pictures[1]), (1280, 720)), 90)

    class Camera(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            try:
                for i in range(200):
                    picture = pictures[i % 2]
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                    self.wfile.write(head.encode() + picture + b"\r\n")
            except OSError:
                return  # the client has enough

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Camera) as camera:
        threading.Thread(target=camera.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{camera.server_port}/video"
        result = run(address, "--output", tmp_path / "c.npy", "--frames", 4, "--interval", 0)
        camera.shutdown()
    assert result.exit_code == 0, result.output
    assert len(np.load(tmp_path / "c.npy")) == 2  # two scenes, repeated
    assert "4 frames: 2 kept, 2 near-duplicates" in result.output


def jpeg_pixels(data: bytes) -> np.ndarray:
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def test_goes_on_after_ctrl_c(data_folder, tmp_path, onnx_path, monkeypatch):
    output, whole = tmp_path / "c.npy", tmp_path / "whole.npy"
    run(data_folder / "*.jpg", "--output", whole)
    seen, read_picture = [], frames.read_picture

    def interrupted(path):
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(path)
        return read_picture(path)

    monkeypatch.setattr(frames, "read_picture", interrupted)
    result = run(data_folder / "*.jpg", "--output", output)
    assert result.exit_code == 130
    assert "3 frames kept; the same command goes on" in result.output
    assert not output.exists()

    # As if the machine had died in the middle of a frame and of a line.
    with (tmp_path / "c.npy.part").open("ab") as part, (tmp_path / "c.npy.part.jsonl").open("a") as log:
        part.write(b"\1" * 1000)
        log.write('{"source": "half a li')
    resumed = []

    def read(path):
        resumed.append(path)
        return read_picture(path)

    monkeypatch.setattr(frames, "read_picture", read)
    result = run(data_folder / "*.jpg", "--output", output)
    assert result.exit_code == 0, result.output
    assert not set(resumed) & set(seen)
    np.testing.assert_array_equal(np.load(output), np.load(whole))


def test_another_command_does_not_go_on_with_an_unfinished_file(data_folder, tmp_path, onnx_path):
    output = tmp_path / "c.npy"
    unfinished = calibration_file.CalibrationFile(output, SHAPE, {"sources": ["elsewhere"]}, restart=False)
    unfinished.add({"source": "elsewhere", "key": "k"}, np.zeros(SHAPE, np.float32))
    unfinished.close()
    result = run(data_folder / "*.jpg", "--output", output)
    assert result.exit_code == 2
    assert "--restart" in result.output
    assert run(data_folder / "*.jpg", "--output", output, "--restart").exit_code == 0
    assert len(np.load(output)) == 6


def test_a_run_that_kept_no_frame_does_not_block_the_next(data_folder, tmp_path, onnx_path):
    output = tmp_path / "c.npy"
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    calibration_file.CalibrationFile(output, (3, 2, 2), {"sources": ["elsewhere"]}, restart=False).close()
    assert run(tmp_path / "broken.mp4", "--output", output).exit_code == 2
    result = run(data_folder / "*.jpg", "--output", output)
    assert result.exit_code == 0, result.output
    assert len(np.load(output)) == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.mp4", "c.npy"]


def test_one_side_alone_leaves_the_other_as_the_graph_has_it(data_folder, tmp_path, onnx_path):
    for arguments, size in ((("--height", 200), (200, 320)), (("--width", 200), (180, 200))):
        result = run(data_folder / "cat.jpg", "--output", tmp_path / "c.npy", "--model", onnx_path, *arguments)
        assert result.exit_code == 0, result.output
        assert np.load(tmp_path / "c.npy").shape == (1, 3, *size)


@pytest.mark.parametrize(("height", "width"), [(0, 320), (-5, 320), (180, 0), (180, 9999)])
def test_a_size_out_of_range_is_refused_and_leaves_nothing(data_folder, tmp_path, onnx_path, height, width):
    result = run(data_folder / "cat.jpg", "--output", tmp_path / "c.npy", "--height", height, "--width", width)
    assert result.exit_code == 2, result.exception
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_be_written_is_refused_before_any_work(data_folder, tmp_path, onnx_path, monkeypatch):
    monkeypatch.setattr(frames, "read_picture", lambda path: pytest.fail(f"{path} was read"))
    picture = tmp_path / "cat.jpg"
    picture.write_bytes((data_folder / "cat.jpg").read_bytes())
    for output in (tmp_path, "/proc/x/calib_data.npy", picture):
        result = run(picture, "--output", output)
        assert result.exit_code == 2, result.exception
        assert f"collect_calibration_data: {output} " in " ".join(result.output.split())
    assert list(tmp_path.iterdir()) == [picture]


def test_a_disk_that_fills_up_leaves_what_the_same_command_goes_on_from(data_folder, tmp_path, onnx_path, monkeypatch):
    output = tmp_path / "c.npy"
    with monkeypatch.context() as patch:
        patch.setattr(calibration_file.Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        result = run(data_folder / "*.jpg", "--output", output)
        assert result.exit_code == 2, result.exception
        assert "collect_calibration_data: disk full" in result.output
    monkeypatch.setattr(frames, "read_picture", lambda path: pytest.fail(f"{path} was read again"))
    assert run(data_folder / "*.jpg", "--output", output).exit_code == 0
    assert len(np.load(output)) == 6


def test_frames_come_in_equal_shares_from_unequal_sources():
    assert frames.shares([1000, 10, 1000], 110) == [50, 10, 50]
    assert frames.shares([5, 3], 100) == [5, 3]
    assert frames.evenly(10, 4) == [1, 3, 6, 8]
    assert frames.evenly(3, 9) == [0, 1, 2]


@pytest.mark.parametrize(
    ("argument", "message"), [("nowhere/*.jpg", "no picture or video"), ("empty", "no picture or video")]
)
def test_sources_without_frames(argument, message, tmp_path, onnx_path):
    (tmp_path / "empty").mkdir()
    result = run(tmp_path / argument, "--output", tmp_path / "c.npy")
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert not list(tmp_path.glob("c.npy*"))


def test_unreadable_video(tmp_path, onnx_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    result = run(tmp_path / "broken.mp4", "--output", tmp_path / "c.npy")
    assert result.exit_code == 2
    assert "not a readable video" in " ".join(result.output.split())


def record(**values) -> dict:
    return {
        "kept": True,
        "source": "a",
        "key": "k",
        "size": [1280, 720],
        "brightness": 100.0,
        "labels": ["FACE"],
        **values,
    }


def test_warns_of_a_poor_set_and_not_of_a_good_one():
    good = [record(source="a" if i % 2 else "b", brightness=float(i % 200)) for i in range(600)]
    assert warnings(good) == []
    assert "only 100 frames" in warnings(good[:100])[0]
    assert "equally bright" in warnings([record(source=r["source"]) for r in good])[0]
    assert "one source" in warnings([{**r, "source": "a.mp4"} for r in good])[0]
    assert "0 of 600 frames" in warnings([{**r, "labels": []} for r in good])[0]


def test_records_are_json(tmp_path):
    file = calibration_file.CalibrationFile(tmp_path / "c.npy", (3, 2, 2), {"a": 1}, restart=False)
    file.add({"source": "s", "key": "k"}, np.zeros((3, 2, 2), np.float32))
    file.close()
    lines = (tmp_path / "c.npy.part.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"a": 1}, {"source": "s", "key": "k", "kept": True}]
