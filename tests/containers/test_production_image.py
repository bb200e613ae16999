"""Both targets of deploy/Dockerfile on a stand-in for NVIDIA's image: they build, and serve nothing without a plan."""

from __future__ import annotations

import subprocess

import pytest

from helpers import containers

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def images() -> dict[str, str]:
    """Target -> image."""
    python, _ = containers.base_images()
    containers.provide(python)  # the stand-in is built on it
    containers.provide(containers.triton_image())
    for target, tag in (("server", containers.SERVER), ("builder", containers.BUILDER)):
        containers.build("Dockerfile", tag, "--target", target)
    return {"server": containers.SERVER, "builder": containers.BUILDER}


def test_the_server_refuses_a_repository_without_a_plan(images: dict[str, str]):
    mount = f"{containers.ROOT / 'model_repository' / 'nudenet_trt'}/config.pbtxt:/models/nudenet_trt/config.pbtxt:ro"
    command = [
        "docker",
        "run",
        "--rm",
        "--read-only",
        "--tmpfs",
        "/tmp",
        "--cap-drop=ALL",
        "-v",
        mount,
        images["server"],
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "there is no plan at /models/nudenet_trt/1/model.plan; build it: make plan" in done.stdout


def test_the_server_has_what_the_models_import(images: dict[str, str]):
    code = (
        "import sys; sys.path.append('model_repository/nudenet/1'); import nudenet_steps.pipeline, container.entrypoint"
    )
    entrypoint = ("--entrypoint", "python3", images["server"], "-c", code)
    containers.docker("run", "--rm", "--read-only", "--network", "none", *entrypoint)


def test_the_builder_has_the_graph_and_the_bindings_of_the_images_tensorrt(images: dict[str, str]):
    code = (
        "import importlib.metadata as m, os, pathlib;"
        "print(m.version('tensorrt-cu13-bindings'), os.getuid(),"
        " pathlib.Path('model_repository/nudenet_trt/1/model.onnx').is_file())"
    )
    inside = ("run", "--rm", "--network", "none")
    said = containers.docker(*inside, "--entrypoint", "python3", images["builder"], "-c", code)
    assert said == f"{containers.TRT_VERSION} 1000 True"
    usage = containers.docker(*inside, images["builder"], "--help")
    assert "--precision" in usage
