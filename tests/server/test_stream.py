"""tools/stream.py against the real server, as a person runs it."""

import json
import re
import signal
import subprocess
import sys

import av
import numpy as np
import pytest

import clips
from nudenet_client import Client
from nudenet_tools import ROOT


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two seconds of moving 720p at 30 FPS, as MJPEG and as H.264."""
    path = tmp_path_factory.mktemp("streams")
    for name in ("m.avi", "h.mp4"):
        assert clips.write(path / name, seconds=2) == 60
    return path


def start(server, *arguments):
    command = [sys.executable, ROOT / "tools" / "stream.py", "--url", server.grpc_url, *arguments]
    return subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )


def finish(process):
    """(exit status, JSON lines, summary: stream or "all" -> read, served, dropped, failed)."""
    out, text = process.communicate(timeout=60)
    rows = re.findall(r"^ *(\S+)((?: +\d+){4})", text, re.MULTILINE)
    return (
        process.returncode,
        [json.loads(line) for line in out.splitlines()],
        {(name, i): [int(number) for number in numbers.split()] for i, (name, numbers) in enumerate(rows)},
    )


def test_eight_streams_at_30_fps_with_every_frame_accounted_for(server, folder):
    """Four MJPEG and four H.264 streams; two cores cannot serve them all, so frames are dropped, not queued."""
    status, answers, summary = finish(start(server, *[folder / "m.avi", folder / "h.mp4"] * 4, "--json", "-"))
    assert status == 0
    *streams, total = summary.values()
    assert len(streams) == 8
    for read, served, dropped, failed in streams:
        assert read == 60
        assert read == served + dropped + failed
        assert served > 0
        assert failed == 0
    assert total == np.sum(streams, axis=0).tolist()
    assert len(answers) == total[1]
    assert {answer["detections"][0]["label"] for answer in answers if answer["detections"]} == {"FACE_FEMALE"}


def test_nothing_of_a_recording_is_left_out_where_asked_for(server, folder, tmp_path):
    outputs = ["--annotate", tmp_path / "boxes", "--censor", tmp_path / "hidden", "--events", tmp_path / "events"]
    options = ["--censor-classes", "FACE_FEMALE", "--style", "fill", "--every-frame", "--json", tmp_path / "all.jsonl"]
    status, _, summary = finish(start(server, folder / "h.mp4", *outputs, *options))
    assert status == 0
    assert next(iter(summary.values())) == [60, 60, 0, 0]
    answers = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert [answer["frame"] for answer in answers] == list(range(60))
    (event,) = (tmp_path / "events" / "h.srt").read_text().strip().split("\n\n")
    assert "00:00:00,000 --> 00:00:01,967\nFACE_FEMALE" in event
    with av.open(str(tmp_path / "boxes" / "h.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 60
    with av.open(str(tmp_path / "hidden" / "h.mp4")) as container, Client(server.grpc_url) as client:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(frames) == 60
        for found in client.detect_many(frames[::15]):
            assert "FACE_FEMALE" not in found.labels


def test_control_c_ends_with_a_summary(server, folder):
    process = start(server, folder / "m.avi", folder / "m.avi", "--json", "-")
    process.stdout.readline()  # at work
    process.send_signal(signal.SIGINT)
    status, _, summary = finish(process)
    assert status == 0
    assert len(summary) == 3
    for read, served, dropped, failed in summary.values():
        assert 0 < read < 120
        assert read == served + dropped + failed


def test_duration_ends_endless_streams(server, folder):
    status, answers, summary = finish(start(server, folder / "m.avi", "--duration", 0.5, "--json", "-"))
    assert status == 0
    assert 0 < next(iter(summary.values()))[0] < 60
    assert answers


def test_one_unreadable_stream_does_not_stop_the_other(server, folder, tmp_path):
    (tmp_path / "text.mp4").write_text("hello")
    process = start(server, tmp_path / "text.mp4", folder / "m.avi", "--every-frame")
    _, text = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Invalid data" in text
    assert re.search(r"m\.avi +60 +60 +0 +0", text)


def test_a_missing_source_is_said_at_once(server, folder):
    process = start(server, folder / "none.mp4")
    _, text = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "no such file or folder" in " ".join(text.split())  # long paths are wrapped
