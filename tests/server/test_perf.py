"""tools/perf.py with the real perf_analyzer."""

import base64
import csv
import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from nudenet_tools import ROOT
from nudenet_tools.server.status import read_statistics

# The shortest runs that perf_analyzer calls a measurement.
SHORT = ("--measurement-mode", "count_windows", "--measurement-request-count", "5", "--stability-percentage", "999")


def run(*arguments, status=0):
    command = [sys.executable, ROOT / "tools" / "perf.py", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == status, result.stdout + result.stderr
    return result


@pytest.fixture
def folder(tmp_path, astronaut):
    """A JPEG, and below it a PNG that has to be encoded."""
    (tmp_path / "in" / "below").mkdir(parents=True)
    (tmp_path / "in" / "a.jpg").write_bytes(astronaut)
    Image.new("RGB", (64, 36), "red").save(tmp_path / "in" / "below" / "b.png")
    (tmp_path / "in" / "notes.txt").write_text("not for us")
    return tmp_path / "in"


def test_a_running_server_is_measured_with_what_the_user_says(server, folder, tmp_path):
    before = read_statistics(server.http_url)["nudenet"][0]
    report = tmp_path / "report.csv"
    load = ["--concurrency-range", "2", "-b", "4", "-f", report]
    result = run("--url", server.grpc_url, "--pictures", folder, *load, *SHORT)
    assert "Batch size: 4" in result.stdout
    assert "Concurrency: 2, throughput: " in result.stdout
    assert "pictures: 2;" in result.stderr
    (row,) = csv.DictReader(report.open())
    assert (row["Concurrency"], float(row["Inferences/Second"]) > 0) == ("2", True)
    recent = read_statistics(server.http_url)["nudenet"][0] - before
    assert recent.failures == 0
    assert recent.pictures == 4 * recent.requests > 0


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_the_detector_itself_gets_one_of_its_two_inputs(server, protocol):
    url = server.grpc_url if protocol == "grpc" else server.http_url
    before = read_statistics(server.http_url)["nudenet_trt"][0]
    result = run("--url", url, "-i", protocol, "-m", "nudenet_trt", "--concurrency-range", "2", *SHORT)
    assert "Concurrency: 2, throughput: " in result.stdout
    recent = read_statistics(server.http_url)["nudenet_trt"][0] - before
    assert recent.failures == 0
    assert recent.pictures > 0


@pytest.mark.parametrize("load", [("--concurrency-range", "1:64:21"), ("--concurrency-range", "8", "-b", "8")])
def test_no_request_fails_at_full_load(server, load):
    """The server's own time-out is long enough for as many requests at once."""
    before = read_statistics(server.http_url)["nudenet"][0]
    result = run("--url", server.grpc_url, *load, *SHORT)
    assert f"Concurrency: {load[1].split(':')[1] if ':' in load[1] else load[1]}, throughput: " in result.stdout
    assert (read_statistics(server.http_url)["nudenet"][0] - before).failures == 0


def test_without_a_url_it_starts_a_server_and_loads_it_lightly_and_fully():
    result = run(*SHORT)
    assert "started a server on 127.0.0.1:" in result.stderr
    assert "Concurrency: 1, throughput: " in result.stdout
    assert "Concurrency: 16, throughput: " in result.stdout
    assert "nudenet_preprocess" in result.stdout  # times of the steps
    port = result.stderr.partition("started a server on 127.0.0.1:")[2].partition(":")[0]
    assert subprocess.run(["pgrep", "-f", f"grpc-port={port}"], check=False, capture_output=True).returncode == 1


def test_http_at_a_request_rate_in_place_of_the_concurrency(server):
    result = run("--url", server.http_url, "-i", "http", "--request-rate-range=40", *SHORT)
    assert "Avg HTTP time" in result.stdout
    assert "Request Rate: 40" in result.stdout
    assert "oncurrency: 16" not in result.stdout


def test_the_input_file_alone_for_a_perf_analyzer_elsewhere(folder, tmp_path, astronaut):
    target = tmp_path / "pictures.json"
    run("--input-only", target, "--pictures", folder / "a.jpg", "--pictures", folder)
    entries = json.loads(target.read_text())["data"]
    files = [base64.b64decode(entry["image"]["b64"]) for entry in entries]
    assert files[0] == files[1] == struct.pack("<I", len(astronaut)) + astronaut
    assert len(files) == 3
    assert files[2][4:6] == b"\xff\xd8"  # the PNG as JPEG


def test_what_cannot_work_says_why(tmp_path):
    assert "Connection refused" in run("--url", "127.0.0.1:1", status=99).stderr
    assert f"{tmp_path}: no pictures there" in run("--pictures", tmp_path, status=1).stderr
    missing = run("--pictures", Path("/no/such.jpg"), status=1)
    assert "/no/such.jpg: cannot be read: No such file" in missing.stderr
    detector = run("--input-only", tmp_path / "pixels.json", "-m", "nudenet_trt", status=2)
    assert "leave out -m" in detector.stderr
    assert not (tmp_path / "pixels.json").exists()
    wrong = run("--url", "127.0.0.1:1", "--no-such-option", "3", status=99)
    assert "unrecognized option" in wrong.stdout + wrong.stderr
