"""tools/bulk.py: killed half-way and started again with the other engine, every picture has exactly one right row."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import psutil
import pyarrow.dataset
import pytest
import simplejpeg

from nudenet_tools.bulk.parts import SCHEMA
from nudenet_tools.server.process import Options, Ports, Server

BULK = Path(__file__).parents[2] / "tools" / "bulk.py"
PICTURES = 2000
PART = 100
KINDS = 40  # different pictures; each has its own width, by which a row in the wrong place is found out
BROKEN = 7  # this kind is damaged


@pytest.fixture(scope="module")
def folder(astronaut: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,000 small pictures in subfolders, and two files that are no pictures."""
    pixels = simplejpeg.decode_jpeg(astronaut)
    kinds = []
    for kind in range(KINDS):
        small = cv2.resize(pixels[:, kind * 8 :], (160 + kind, 120), interpolation=cv2.INTER_AREA)
        data = simplejpeg.encode_jpeg(np.ascontiguousarray(small), quality=90)
        kinds.append(data if kind != BROKEN else data[: len(data) // 2])
    root = tmp_path_factory.mktemp("pictures")
    for number in range(PICTURES):
        path = root / f"{number // 200}" / f"{number:05}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(kinds[number % KINDS])
    (root / "notes.md").write_text("no picture")
    (root / "empty").mkdir()
    return root


@pytest.fixture(scope="module")
def own_server(onnx_path: Path) -> Iterator[Server]:
    with Server(Options(ports=Ports.free())) as running:
        yield running


def start(folder: Path, output: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, str(BULK), str(folder), f"--output={output}", f"--part-size={PART}", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def kill_half_way(process: subprocess.Popen, output: Path) -> None:
    """SIGKILL to the driver as soon as a third is written; its actors must follow it."""
    deadline = time.monotonic() + 60
    while len(list(output.glob("*.parquet"))) < PICTURES // PART // 3:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, "nothing was written"
        time.sleep(0.02)
    family = psutil.Process(process.pid).children(recursive=True)
    actors = [member for member in family if "MapWorker" in " ".join(member.cmdline())]
    assert actors
    process.send_signal(signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 20
    while (left := [actor for actor in actors if runs(actor)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    for straggler in filter(runs, family):  # Ray's agents take their time
        straggler.kill()
    assert not left, "an actor outlived its driver and might still write"


def runs(process: psutil.Process) -> bool:
    """Whether it does anything yet; a dead one that nobody has collected does not."""
    try:
        return process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="module")
def rows(folder: Path, own_server: Server, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What two runs wrote: one against a server, killed, and one with the embedded engine, which goes on."""
    output = tmp_path_factory.mktemp("bulk") / "found"
    kill_half_way(start(folder, output, f"--url={own_server.grpc_url}", "--actors=1"), output)
    before = {path.name: path.stat().st_mtime_ns for path in output.glob("*.parquet")}
    assert 0 < len(before) < PICTURES // PART

    second = start(folder, output)
    said, _ = second.communicate(timeout=120)
    assert second.returncode == 0, said
    assert f"{PICTURES - len(before) * PART} pictures to do, {len(before) * PART} done before" in said
    assert {path.name: path.stat().st_mtime_ns for path in output.glob("*.parquet")}.items() >= before.items()
    found = []
    for path in output.glob("*.parquet"):
        table = pyarrow.dataset.dataset(path).to_table()
        assert table.schema.equals(SCHEMA)
        found += [{**row, "from_server": path.name in before} for row in table.to_pylist()]
    return found


def kind(row: dict) -> int:
    return int(Path(row["source"]).stem) % KINDS


def test_every_picture_has_exactly_one_row(folder: Path, rows: list[dict]):
    assert sorted(row["source"] for row in rows) == sorted(str(path) for path in folder.rglob("*.jpg"))


def test_bad_pictures_are_rows_with_a_reason(rows: list[dict]):
    bad = [row for row in rows if row["error"] is not None]
    assert len(bad) == PICTURES // KINDS
    assert {kind(row) for row in bad} == {BROKEN}
    assert all("truncated" in row["error"] and row["detections"] == [] for row in bad)


def test_every_row_belongs_to_its_picture_whatever_looked_at_it(rows: list[dict]):
    sound = [row for row in rows if kind(row) != BROKEN]
    assert all((row["width"], row["height"]) == (160 + kind(row), 120) for row in sound)
    assert sum(len(row["detections"]) for row in sound) > PICTURES // 2
    reference = {kind(row): row["detections"] for row in sound if row["from_server"]}
    assert len(reference) == KINDS - 1
    for row in sound:
        expected = reference[kind(row)]
        assert [found["label"] for found in row["detections"]] == [found["label"] for found in expected]
        for found, other in zip(row["detections"], expected, strict=True):
            assert found["confidence"] == pytest.approx(other["confidence"], abs=0.02)
            assert [found[key] for key in ("x1", "y1", "x2", "y2")] == pytest.approx(
                [other[key] for key in ("x1", "y1", "x2", "y2")], abs=1.5
            )


def test_nothing_to_do_says_so_at_once(tmp_path: Path):
    result = start(tmp_path / "missing", tmp_path / "out")
    said, _ = result.communicate(timeout=60)
    assert result.returncode == 2
    assert "is no folder" in said


def test_odd_files_and_names_are_rows_like_others(own_server: Server, tmp_path: Path, astronaut: bytes):
    folder = tmp_path / "holiday [2019]"
    folder.mkdir()
    (folder / "caf\udce9.jpg").write_bytes(astronaut)
    (folder / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR and no more")
    process = start(folder, tmp_path / "out", f"--url={own_server.grpc_url}", "--actors=1")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    rows = {row["source"]: row for row in pyarrow.dataset.dataset(tmp_path / "out").to_table().to_pylist()}
    assert len(rows) == 2
    (latin,) = (row for name, row in rows.items() if name.endswith("caf%E9.jpg"))
    assert [found["label"] for found in latin["detections"]] == ["FACE_FEMALE"]
    assert rows[str(folder / "cut.png")]["error"]
    again, _ = start(folder, tmp_path / "out", f"--url={own_server.grpc_url}").communicate(timeout=60)
    assert "0 pictures to do, 2 done before" in again
