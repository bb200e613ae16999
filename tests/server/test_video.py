"""tools/video.py against the real server: equal to looking at each frame by itself; killed in between."""

import json
import signal
import subprocess
import sys
import threading
import time

import pytest

import clips
from nudenet_client import Client, Parameters
from nudenet_tools import ROOT
from nudenet_tools.streams.source import Source


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A face, a rocket, a face: MJPEG at 25 FPS."""
    folder = tmp_path_factory.mktemp("video")
    clips.write(folder / "face.mjpeg", seconds=1.5, width=640, height=360)
    clips.write(folder / "other.mjpeg", ROOT / "tests/data/rocket.jpg", seconds=1.5, width=640, height=360)
    face, other = ((folder / f"{name}.mjpeg").read_bytes() for name in ("face", "other"))
    (folder / "clip.mjpeg").write_bytes(face + other + face)
    return folder / "clip.mjpeg"


def start(server, clip, output, *arguments):
    command = [sys.executable, ROOT / "tools" / "video.py", "--url", server.grpc_url, clip, "--output", output]
    return subprocess.Popen([str(part) for part in [*command, *arguments]], stderr=subprocess.PIPE, text=True, cwd=ROOT)


def test_segments_equal_each_frame_by_itself_also_after_a_kill(server, clip, tmp_path):
    with Client(server.grpc_url) as client:
        frames = list(Source(str(clip), paced=False).frames(threading.Event()))
        pictures = (frame.jpeg(85) for frame in frames)
        finds = list(client.detect_many(pictures, Parameters(policy="standard")))
    assert len(frames) >= 100
    times = [
        (frame.number, round(frame.time, 3))
        for frame, found in zip(frames, finds, strict=True)
        if "FACE_FEMALE" in found.labels
    ]
    process = start(server, clip, tmp_path, "--gap", "0.5", "--policy", "standard")
    process.send_signal(signal.SIGKILL)  # wherever it is
    process.communicate()
    process = start(server, clip, tmp_path, "--gap", "0.5", "--policy", "standard")
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)  # a stop, wherever it is by now: what was done is kept
    process.communicate(timeout=60)
    process = start(server, clip, tmp_path, "--gap", "0.5", "--policy", "standard")
    text = process.communicate(timeout=120)[1]
    assert process.returncode == 0, text
    (path,) = tmp_path.iterdir()
    answer = json.loads(path.read_text())
    assert answer["complete"]
    assert answer["frames"] == {"analysed": len(frames), "failed": 0, "last": frames[-1].number}
    assert answer["policy"] == "standard"
    assert len(answer["policy_sha256"]) == 64
    segments = [one for one in answer["segments"] if one["name"] == "FACE_FEMALE"]
    assert len(segments) == 2
    expected = []
    for _, at in times:
        if not expected or round(at - expected[-1][1], 3) > 0.5:
            expected.append([at, at, 0])
        expected[-1][1:] = at, expected[-1][2] + 1
    assert [[one["start"], one["end"], one["frames"]] for one in segments] == expected
    assert segments[0]["best"]["frame"] in dict(times)


def test_without_a_server_it_says_so_and_leaves_no_result(clip, tmp_path, free_tcp_port):
    done = subprocess.run(
        [
            *(sys.executable, ROOT / "tools" / "video.py", clip, "--url", f"127.0.0.1:{free_tcp_port}"),
            *("--output", tmp_path, "--deadline", "0.5"),
        ],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode == 1
    assert "127.0.0.1" in done.stderr
    assert not (tmp_path / "clip.json").exists()
