"""Every command and every piece of code that the documentation shows for a running server is run here."""

import json
import re
import subprocess
import sys

import pytest

from helpers import gateways
from nudenet_tools import ROOT

# Pages that show how to talk to a running server. A block marked `console` starts, builds or installs something: other
# tests do that.
PAGES = (
    "README.md",
    "docs/clients.md",
    "docs/streams.md",
    "docs/status.md",
    "docs/rules.md",
    "docs/segments.md",
    "docs/http.md",
    "docs/decisions.md",
)


def sections(page):
    """Title and text of each section of second order."""
    parts = re.split(r"^## ", (ROOT / page).read_text(), flags=re.MULTILINE)[0 if page != "README.md" else 1 :]
    return [part.split("\n", 1) for part in parts]


def blocks(language):
    """Code blocks of one language, each named by page and section."""
    return [
        pytest.param(code, id=f"{page} {title} {i}", marks=[pytest.mark.needs("curl")] if "curl " in code else [])
        for page in PAGES
        for title, text in sections(page)
        for i, code in enumerate(re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL))
    ]


@pytest.fixture(scope="module")
def house(tmp_path_factory, node_project):
    """A folder that links to the repository's entries and to the packed Node.js client; what is written stays in it."""
    folder = tmp_path_factory.mktemp("house")
    for name in ("tools", "tests", "clients", "model_repository"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "node_modules").symlink_to(node_project / "node_modules")
    return folder


@pytest.fixture(scope="module")
def gateway(server):
    """Address of a gateway in front of the server."""
    with gateways.gateway(server.grpc_url) as address:
        yield address


@pytest.fixture
def run(server, house, request):
    """Runs a command in the house; the ports of the documentation become those of the test's server."""

    def call(command, code=None):
        ports = {
            ":8000": f":{server.ports.http}",
            ":8001": f":{server.ports.grpc}",
            ":8002": f":{server.ports.metrics}",
        }
        text = re.sub(":800[012]", lambda match: ports[match[0]], code or command[-1])
        if (address := "http://127.0.0.1:8080") in text:
            text = text.replace(address, request.getfixturevalue("gateway"))
        if code is None:
            command = [*command[:-1], text]
        else:
            (house / command[-1]).write_text(text)
        environment = {"GRPC_PORT": str(server.ports.grpc), "HTTP_PORT": str(server.ports.http)}
        environment |= {"METRICS_PORT": str(server.ports.metrics)}
        command = ["env", "-u", "PYTHONPATH", *(f"{name}={value}" for name, value in environment.items()), *command]
        result = subprocess.run(command, cwd=house, capture_output=True, text=True, timeout=120, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout + result.stderr

    return call


@pytest.mark.parametrize("code", blocks("sh"))
def test_shell(run, code):
    assert run(["bash", "-euo", "pipefail", "-c", code])


@pytest.mark.parametrize("code", blocks("python"))
def test_python(run, code, clean_python):
    output = run([str(clean_python), "example.py"], code)
    assert "FACE_FEMALE" in output
    assert "the server:" not in output


@pytest.mark.parametrize("code", blocks("js"))
def test_javascript(run, code):
    assert "FACE_FEMALE" in run(["node", "example.mjs"], code)


@pytest.mark.needs("curl")
def test_the_shown_answers_are_the_real_ones(run):
    """The JSON in the documentation is what the server answers, but for the last bits of other CPUs."""
    (shown,) = [json.loads(block.values[0]) for block in blocks("json") if block.id == "docs/clients.md A folder 0"]
    (real,) = [
        json.loads(line)
        for line in run(
            ["bash", "-c", ".venv/bin/python tools/detect.py tests/data/astronaut_720p.jpg --json"]
        ).splitlines()
    ]
    assert [found.keys() for found in real["detections"]] == [found.keys() for found in shown["detections"]]
    for key in ("box", "confidence"):
        assert real["detections"][0][key] == pytest.approx(shown["detections"][0][key], rel=0.02)
    curl = next(block.values[0] for block in blocks("sh") if block.id == "docs/clients.md curl 0")
    answer = {output["name"]: output["data"] for output in json.loads(run(["bash", "-c", curl]))["outputs"]}
    assert answer["num_detections"] == [1]
    assert answer["labels"] == ["FACE_FEMALE"]
    found = real["detections"][0]
    assert answer["detections"] == [*found["box"], found["class_id"], found["confidence"]]


def test_the_documentation_is_found_at_all():
    assert len(blocks("sh")) >= 12
    assert len(blocks("python")) >= 3
    assert len(blocks("js")) >= 2
