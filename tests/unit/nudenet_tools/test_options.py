"""What several tools share: how they reach a server that is not on this machine, and what they must not write over."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import detect
import stream
import video
from conftest import DATA
from nudenet_client import Tls
from nudenet_tools import options

PICTURE = DATA / "astronaut_720p.jpg"


@pytest.fixture(autouse=True)
def no_key_in_the_environment(monkeypatch):
    monkeypatch.delenv("NUDENET_API_KEY", raising=False)


@pytest.fixture
def key_file(tmp_path) -> Path:
    path = tmp_path / "key"
    path.write_text("from-the-file\n")
    return path


def test_nothing_asked_for():
    assert options.access(False, None, None) == {"tls": None, "api_key": None}


def test_a_key_from_a_file_or_the_environment(key_file, monkeypatch):
    ca = Path("ca.pem")
    assert options.access(False, ca, key_file) == {"tls": Tls(ca), "api_key": "from-the-file"}
    monkeypatch.setenv("NUDENET_API_KEY", "from-the-environment")
    assert options.access(True, None, None) == {"tls": Tls(None), "api_key": "from-the-environment"}
    assert options.access(True, None, key_file)["api_key"] == "from-the-file"


def test_a_key_never_travels_unencrypted(key_file):
    with pytest.raises(typer.BadParameter, match=r"encrypted only: add --tls or --ca FILE"):
        options.access(False, None, key_file)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "No such file"), (b" \n", "is empty"), (b"\xff\xfe", "can't decode")]
)
def test_a_file_without_a_key(content, message, tmp_path):
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(typer.BadParameter, match=message):
        options.access(True, None, path)


# --- outputs ---


def refused(outputs, read=()) -> str:
    with pytest.raises(typer.BadParameter) as caught:
        options.check_outputs(outputs, read)
    return f"{caught.value.param_hint}: {caught.value}"


def test_outputs_of_their_own(tmp_path):
    (tmp_path / "read.mp4").write_bytes(b"")
    outputs = [("--json", tmp_path / "a"), ("--censor", tmp_path / "b" / "a"), ("--json", Path("/dev/null"))]
    options.check_outputs([*outputs, ("--events", Path("/dev/null"))], [tmp_path / "read.mp4", "rtsp://camera/a"])


def test_one_file_for_two_outputs(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    outputs = [("--annotate", tmp_path / "there" / "new.mp4"), ("--censor", tmp_path / "link" / "new.mp4")]
    assert re.fullmatch(r"--censor: .*new\.mp4 is already what --annotate writes; choose another", refused(outputs))


def test_an_original_is_no_output(tmp_path):
    original, other = tmp_path / "clip.mp4", tmp_path / "other.mp4"
    original.write_bytes(b"")
    other.hardlink_to(original)
    for output in (original, tmp_path / "x" / ".." / "clip.mp4", other):
        (tmp_path / "x").mkdir(exist_ok=True)
        assert "is read, and stays as it is; choose another" in refused([("--annotate", output)], [str(original)])


@pytest.fixture
def command(monkeypatch):
    """Runs a tool in this process, where no server is."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def call(tool, *arguments) -> str:
        app = typer.Typer()
        app.command()(tool)
        environment = {"GRPC_PORT": "1", "COLUMNS": "200"}
        result = CliRunner().invoke(app, [str(one) for one in arguments], env=environment)
        assert result.exit_code in (1, 2), result.output
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.output

    return call


@pytest.mark.parametrize("tool", [detect.detect, stream.main], ids=["detect", "stream"])
def test_one_folder_for_annotated_and_censored_is_refused(command, tool, tmp_path):
    said = command(tool, PICTURE, "--annotate", tmp_path / "out", "--censor", tmp_path / "out")
    assert "--annotate writes" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--annotate", "--censor"])
def test_a_recording_is_not_written_over(command, option, tmp_path):
    recording = tmp_path / "clip.mp4"
    recording.write_bytes(b"recorded")
    assert "clip.mp4 is read" in command(stream.main, recording, option, tmp_path)
    assert "clip.mp4 is read" in command(stream.main, tmp_path, "--json", recording)
    assert recording.read_bytes() == b"recorded"


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        (stream.main, ["--url", "http://"], "http://"),
        (stream.main, ["--ca", "none.pem"], "there is no file none.pem"),
        (stream.main, ["--json", "/proc/none/a"], "/proc/none/a"),
        (stream.main, ["--annotate", "/proc/none"], "/proc/none"),
        (stream.main, ["--events", "/proc/none"], "/proc/none"),
        (video.main, ["--url", "http://"], "http://"),
        (video.main, ["--ca", "none.pem"], "there is no file none.pem"),
        (detect.detect, ["--url", "http://"], "http://"),
        (detect.detect, ["--http", "--ca", PICTURE], "cannot be used"),
    ],
)
def test_what_cannot_be_used_is_said_in_a_line(command, tool, arguments, message):
    assert message in command(tool, PICTURE, *arguments)
