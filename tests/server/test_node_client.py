"""The Node.js client: its own tests against the real server, and its answers against the Python client's."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from tritonclient import grpc as triton_grpc

from conftest import DATA
from data.vectors import table
from helpers.client_packages import install_node_dependencies
from helpers.scripted_triton import certificate
from nudenet_tools import ROOT

NODE = ROOT / "clients" / "node"
PICTURE = DATA / "astronaut_720p.jpg"


@pytest.fixture(scope="module", autouse=True)
def installed():
    """Node's packages and the descriptor set."""
    install_node_dependencies()
    subprocess.run([sys.executable, NODE / "write_descriptors.py"], check=True)


def node(*arguments, **environment):
    command = ["node", *(str(argument) for argument in arguments)]
    return subprocess.run(
        command, cwd=NODE, env=os.environ | environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def ten_pictures(tmp_path_factory):
    """Ten JPEG files of different size, shape, content and coding, all from the bundled frame."""
    folder = tmp_path_factory.mktemp("ten")
    turned = Image.Exif()
    turned[0x0112] = 6
    with Image.open(PICTURE) as frame:
        variants = [
            (frame, {"quality": 95}),
            (frame.resize((1920, 1080)), {}),
            (frame.resize((640, 360)), {"progressive": True}),
            (frame.crop((300, 0, 900, 720)), {"quality": 60}),
            (frame.crop((350, 50, 750, 450)), {}),
            (frame.rotate(90, expand=True), {"exif": turned}),
            (ImageOps.mirror(frame), {"subsampling": 0}),
            (frame.convert("L"), {}),
            (ImageEnhance.Brightness(frame).enhance(0.6), {}),
            (frame.resize((333, 517)), {"optimize": True}),
        ]
        paths = [folder / f"{i}.jpg" for i in range(len(variants))]
        for path, (picture, options) in zip(paths, variants, strict=True):
            picture.save(path, "JPEG", **options)
    return paths


@pytest.mark.needs("openssl")
def vectors(folder):
    """The table of odd JPEG files as files, and an index with the size that Chromium shows."""
    answers, index = table.answers(), []
    for number, vector in enumerate(v for v in table.jpegs() if not v.refused):
        (folder / f"{number}.jpg").write_bytes(vector.data)
        answer = answers[vector.name]
        index.append({"name": vector.name, "file": f"{number}.jpg", "width": answer.width, "height": answer.height})
    (folder / "index.json").write_text(json.dumps(index))
    return folder


def test_node_tests_pass(server, tmp_path):
    cert, key = certificate(tmp_path)
    result = node(
        "--test",
        "test/client.test.js",
        "test/server.test.js",
        NUDENET_TEST_URL=server.grpc_url,
        NUDENET_TEST_PICTURE=str(PICTURE),
        NUDENET_TEST_CERTIFICATE=str(cert),
        NUDENET_TEST_KEY=str(key),
        NUDENET_TEST_VECTORS=str(vectors(tmp_path)),
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "fail 0" in result.stdout
    assert "skipped 0" in result.stdout


@pytest.mark.parametrize("batch_size", [1, 8])
def test_node_and_python_answer_the_same_to_the_last_bit(server, ten_pictures, batch_size):
    options = ["--json", "--batch-size", batch_size, "--confidence-threshold", "0.1", "--url", server.grpc_url]
    result = node("detect.js", *options, *ten_pictures)
    assert result.returncode == 0, result.stderr
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    command = [sys.executable, ROOT / "tools" / "detect.py", *options, *ten_pictures]
    python = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout
    # JSON carries the shortest text that reads back as the same double, and every float is a double.
    assert answers == [json.loads(line) for line in python.splitlines()]
    assert len({json.dumps(answer["detections"]) for answer in answers}) >= 9  # not ten times the same


def test_the_command_line_reports_bad_files(server, tmp_path):
    (tmp_path / "text.jpg").write_text("hello")
    result = node("detect.js", PICTURE, tmp_path / "text.jpg", "/no/such.jpg", GRPC_PORT=str(server.ports.grpc))
    assert result.returncode == 1
    assert "1280x720" in result.stdout
    assert "FACE_FEMALE" in result.stdout
    text, missing = result.stderr.splitlines()
    assert "not a JPEG" in text
    assert "no such file" in missing
    nobody = node("detect.js", "--url", "127.0.0.1:1", "--deadline", "0.1", PICTURE)
    assert nobody.returncode == 1
    assert "make serve" in nobody.stderr


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--batch-size", "2.5"], "batchSize must be a whole number in 1..8, got 2.5"),
        (["--priority", "abc"], "priority must be a whole number, 0 or more, got NaN"),
        (["--deadline", "1e15"], "deadlineMs must be above 0 and at most"),
        (["--ca", "/"], "/ cannot be used, PEM files are expected"),
    ],
)
def test_the_command_line_refuses_what_it_cannot_use(server, option, message):
    result = node("detect.js", *option, PICTURE, "--url", server.grpc_url)
    assert (result.returncode, result.stdout) == (1, "")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_who_stops_reading_hears_no_complaint(server):
    command = f'node detect.js --json --url {server.grpc_url} $(yes "{PICTURE}" | head -60) | head -1'
    result = subprocess.run(["bash", "-c", command], cwd=NODE, capture_output=True, text=True, timeout=120, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout)["detections"]


def test_tensors_straight_to_the_detector(server, tmp_path):
    with Image.open(PICTURE) as frame:
        small = np.asarray(frame.resize((320, 180)))
    pictures = np.stack([small, small[:, ::-1], 255 - small])
    (tmp_path / "frames.rgb").write_bytes(pictures.tobytes())
    result = node("tensors.js", tmp_path / "frames.rgb", server.grpc_url)
    assert result.returncode == 0, result.stderr
    tensor = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)) * np.float32(1 / 255)
    request = triton_grpc.InferInput("input", list(tensor.shape), "FP32")
    request.set_data_from_numpy(tensor)
    with triton_grpc.InferenceServerClient(server.grpc_url) as client:
        output = client.infer("nudenet_trt", [request], client_timeout=30).as_numpy("output")
    best = output[np.arange(3), output[..., 5].argmax(axis=1)].astype(float)
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {"frame": i, "class_id": row[4], "confidence": row[5], "box": row[:4].tolist()} for i, row in enumerate(best)
    ]
    assert best[0, 4] == 1
    assert best[0, 5] > 0.8
