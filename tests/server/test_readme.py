"""Every command and every piece of code that the README shows for a running server is run here."""

import json
import re
import subprocess
import sys

import pytest

from nudenet_tools import ROOT

DOCUMENT = ROOT / "README.md"
SECTIONS = ("Send one picture", "A folder", "A stream", "From Python", "From Node.js", "From curl", "Ask the server")


def blocks(language):
    """Code blocks of one language under the sections about clients, each with its section."""
    found = []
    for section in SECTIONS:
        text = DOCUMENT.read_text().split(f"### {section}\n", 1)[1]
        text = re.split(r"^##", text, maxsplit=1, flags=re.MULTILINE)[0]
        found += [
            pytest.param(code, id=f"{section} {i}", marks=[pytest.mark.needs("curl")] if "curl " in code else [])
            for i, code in enumerate(re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL))
        ]
    return found


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """An empty folder with the repository's own entries linked in, so that what is written stays out of it."""
    folder = tmp_path_factory.mktemp("house")
    for name in ("tools", "tests", "clients", "model_repository"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "out").mkdir()
    return folder


@pytest.fixture
def run(server, house):
    """Runs a command in the house; the ports of the documentation become those of the test's server."""

    def call(command, code=None):
        ports = {
            ":8000": f":{server.ports.http}",
            ":8001": f":{server.ports.grpc}",
            ":8002": f":{server.ports.metrics}",
        }
        text = re.sub(":800[012]", lambda match: ports[match[0]], code or command[-1])
        if code is None:
            command = [*command[:-1], text]
        else:
            (house / command[-1]).write_text(text)
        environment = {"GRPC_PORT": str(server.ports.grpc), "HTTP_PORT": str(server.ports.http), "PYTHONPATH": "tools"}
        command = ["env", *(f"{name}={value}" for name, value in environment.items()), *command]
        result = subprocess.run(command, cwd=house, capture_output=True, text=True, timeout=120, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout + result.stderr

    return call


@pytest.mark.parametrize("code", blocks("sh"))
def test_shell(run, code):
    assert run(["bash", "-euo", "pipefail", "-c", code])


@pytest.mark.parametrize("code", blocks("python"))
def test_python(run, code):
    output = run([sys.executable, "example.py"], code)
    assert "FACE_FEMALE" in output
    assert "the server:" not in output


@pytest.mark.parametrize("code", blocks("js"))
def test_javascript(run, code):
    assert "FACE_FEMALE" in run(["node", "example.mjs"], code)


@pytest.mark.needs("curl")
def test_the_shown_answers_are_the_real_ones(run):
    """The JSON in the documentation is what the server answers, but for the last bits of other CPUs."""
    (shown,) = [json.loads(block.values[0]) for block in blocks("json") if block.id == "A folder 0"]
    (real,) = [
        json.loads(line)
        for line in run(
            ["bash", "-c", ".venv/bin/python tools/detect.py tests/data/astronaut_720p.jpg --json"]
        ).splitlines()
    ]
    assert [found.keys() for found in real["detections"]] == [found.keys() for found in shown["detections"]]
    for key in ("box", "confidence"):
        assert real["detections"][0][key] == pytest.approx(shown["detections"][0][key], rel=0.02)
    curl = next(block.values[0] for block in blocks("sh") if block.id == "From curl 0")
    answer = {output["name"]: output["data"] for output in json.loads(run(["bash", "-c", curl]))["outputs"]}
    assert answer["num_detections"] == [1]
    assert answer["labels"] == ["FACE_FEMALE"]
    found = real["detections"][0]
    assert answer["detections"] == [*found["box"], found["class_id"], found["confidence"]]


def test_the_documentation_is_found_at_all():
    assert len(blocks("sh")) >= 8
    assert len(blocks("python")) >= 2
    assert len(blocks("js")) >= 1
