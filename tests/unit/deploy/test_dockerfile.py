"""What can be checked of the container images without a docker engine."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

ROOT = Path(__file__).parents[3]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
OLDEST_TAG = (26, 8)  # the batcher does not starve


def instructions() -> list[tuple[str, str]]:
    """(instruction, rest) with continued lines joined, comments dropped."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.M).replace("\\\n", " ")
    return [(word.upper(), rest.strip()) for word, rest in (line.split(" ", 1) for line in text.splitlines() if line)]


def stages() -> dict[str, list[tuple[str, str]]]:
    """Instructions of each named stage, those of the stage it starts from included."""
    found: dict[str, list[tuple[str, str]]] = {}
    current: list[tuple[str, str]] = []
    for word, rest in instructions():
        if word == "FROM":
            parent, name = re.fullmatch(r"(\S+) AS (\S+)", rest).groups()
            current = found[name] = list(found.get(parent, ()))
        current.append((word, rest))
    return found


def pins(path: Path) -> dict[str, str]:
    """Package -> pinned requirement without its comment."""
    lines = [line.split("#")[0].strip() for line in path.read_text().splitlines()]
    return {re.split(r"[=\[;]", line)[0]: line for line in lines if line}


def test_one_pinned_recent_release_for_all_stages() -> None:
    arguments = [rest for word, rest in instructions() if word == "ARG"]
    (tag,) = (argument.removeprefix("TRITON_TAG=") for argument in arguments)
    year, month = re.fullmatch(r"(\d\d)\.(\d\d)-py3", tag).groups()
    assert (int(year), int(month)) >= OLDEST_TAG
    bases = [rest.split(" AS ")[0] for word, rest in instructions() if word == "FROM"]
    assert bases == ["nvcr.io/nvidia/tritonserver:${TRITON_TAG}", "base", "base"]
    assert tag not in (ROOT / "Makefile").read_text(), "the Makefile reads it from the Dockerfile"


@pytest.mark.parametrize("stage", ["server", "builder"])
def test_runs_as_nobody_special(stage: str) -> None:
    users = [rest for word, rest in stages()[stage] if word == "USER"]
    assert users[-1:] == ["1000:1000"]


def copied(stage: str) -> set[str]:
    """Sources that a stage copies out of this folder."""
    return {source for word, rest in stages()[stage] if word == "COPY" for source in rest.split()[:-1]}


def test_what_is_copied_exists_and_is_let_through() -> None:
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    assert "*" in rules
    for source in copied("server") | copied("builder"):
        assert (ROOT / source).exists(), source
        assert any(source == entry or source.startswith(f"{entry}/") for entry in allowed), source


def test_no_weights_and_no_data_get_in() -> None:
    """What Git is told never to take, no image takes either."""
    rules = (ROOT / ".gitignore").read_text().partition("# built or brought by the user")[2].splitlines()
    patterns = {rule for rule in rules if rule.startswith("*.")} - {"*.egg-info/"}
    assert {"*.onnx", "*.plan", "*.engine", "*.npy"} <= patterns
    assert {f"**/{pattern}" for pattern in patterns} <= set((ROOT / ".dockerignore").read_text().splitlines())


def test_the_server_gets_its_requirements_and_none_of_the_build_scripts() -> None:
    installs = [rest for word, rest in stages()["server"] if word == "RUN"]
    assert installs[1:] == ["pip3 install --no-deps -r requirements/image-triton.txt"]
    assert "tested on x86_64 only" in installs[0]
    assert not copied("server") & {"build", "tests/data", "tools"}
    assert "model_repository" in copied("server")


def test_the_requirements_are_all_that_the_image_needs(tmp_path: Path) -> None:
    """With only the listed packages importable, models' modules and probe import."""
    site = Path(numpy.__file__).parents[1]
    for name in pins(ROOT / "requirements/image-triton.txt"):
        distribution = importlib.metadata.distribution(name)
        for top in {Path(file).parts[0] for file in distribution.files or () if ".." not in Path(file).parts}:
            if not (tmp_path / top).exists():
                (tmp_path / top).symlink_to(site / top)
    code = """
from container import canary_exporter, check_plan, entrypoint, healthcheck
from nudenet_steps.postprocess import nms
from nudenet_steps.preprocess import cpu_decoder
from nudenet_steps.serving import backpressure, heartbeat, metrics, model_parameters
import numpy
print(numpy.__file__)
"""
    folders = [tmp_path, ROOT / "tools", ROOT / "model_repository/nudenet/1"]
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": ":".join(map(str, folders))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path)), "nothing else was in reach"


@pytest.mark.parametrize("name", ["requirements/image-triton.txt", "requirements/image-builder.txt"])
def test_images_get_the_versions_that_are_tested(name: str) -> None:
    tested = (ROOT / "requirements.txt").read_text() + (ROOT / "requirements" / "constraints.txt").read_text()
    for line in (ROOT / name).read_text().splitlines():
        line = re.split("[;#]", line)[0].strip()
        if not line:
            continue
        assert re.fullmatch(r"[\w-]+==[\w.]+", line)
        assert re.search(rf"^{re.escape(line)}\b", tested, re.M), f"{line} is not what is tested"


def run_block(stage: str, word: str) -> str:
    (block,) = [rest for kind, rest in stages()[stage] if kind == "RUN" and word in rest]
    return block


@pytest.mark.parametrize(
    ("trt", "cuda", "package"),
    [
        ("11.2.1.2", "13.4.1", "tensorrt-cu13-bindings==11.2.1.2"),
        ("10.13.3.9+cuda13.0", "13.0.2.006", "tensorrt-cu13-bindings==10.13.3.9"),
        ("10.5.0", "12.6.2", "tensorrt-cu12-bindings==10.5.0"),
        (None, "13.3.1", None),
        ("11.1.0.106", None, None),
    ],
)
def test_bindings_follow_the_image(tmp_path: Path, trt: str | None, cuda: str | None, package: str | None) -> None:
    """The shell lines themselves, with a pip3 that only writes down what it was asked for."""
    pip = tmp_path / "pip3"
    pip.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    pip.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    environment |= {name: value for name, value in (("TRT_VERSION", trt), ("CUDA_VERSION", cuda)) if value}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", run_block("builder", "tensorrt-cu")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if package is None:
        assert done.returncode != 0
        assert "does not say its" in done.stderr
        assert not (tmp_path / "asked").exists()
    else:
        assert (tmp_path / "asked").read_text().split() == ["install", "--no-deps", package]


def test_the_entry_point_watches_the_server() -> None:
    """NVIDIA's script replaces itself by its arguments, so process 1 is the watchman."""
    (entrypoint,) = [json.loads(rest) for word, rest in stages()["server"] if word == "ENTRYPOINT"]
    assert entrypoint == ["/opt/nvidia/nvidia_entrypoint.sh", "python3", "-m", "container.entrypoint"]
    assert ("ENV", "PYTHONPATH=/opt/nudenet/tools") in stages()["server"]


@pytest.mark.parametrize("target", ["plan", "serve-docker"])
def test_make_targets_run_the_right_image_on_this_repository(target: str) -> None:
    command = ["make", "--no-print-directory", "-n", target, "TRITON_TAG=26.08-py3"]
    # What an outer make or the shell sets (ARGS, HTTP_PORT, PLAN) is not for this one.
    environment = {"PATH": os.environ["PATH"]}
    lines = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    build, run = (shlex.split(line) for line in lines.replace("\\\n", " ").splitlines() if line.startswith("docker"))
    stage = {"plan": "builder", "serve-docker": "server"}[target]
    assert build[build.index("--target") + 1] == stage
    assert "TRITON_TAG=26.08-py3" in build
    image = build[build.index("-t") + 1]
    assert image in run
    mount = f"{ROOT}/model_repository:/models" + (":ro" if target == "serve-docker" else "")
    assert mount in run
    assert run[run.index("--gpus") + 1] == "device=0"
    if target == "serve-docker":
        published = [run[i + 1] for i, word in enumerate(run) if word == "-p"]
        assert published == [f"127.0.0.1:{port}:{port}" for port in (8000, 8001, 8002)]
        assert {"--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"} <= set(run)
    else:
        assert run[-2:] == ["--output", "/models/nudenet_trt/1/model.plan"]
