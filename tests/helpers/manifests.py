"""The Kubernetes manifests as users apply them: rendered by kubectl."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path

import yaml

from container import entrypoint, security
from container.process import Options

KUBERNETES = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"
FOLDERS = ("base", *(f"overlays/{path.name}" for path in sorted((KUBERNETES / "overlays").iterdir())))


@functools.cache
def render(folder: str) -> tuple[dict, ...]:
    """All resources of a kustomization under deploy/kubernetes."""
    result = subprocess.run(
        ["kubectl", "kustomize", str(KUBERNETES / folder)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return tuple(yaml.safe_load_all(result.stdout))


def find(folder: str, kind: str, name: str = "nudenet") -> dict:
    """One resource."""
    (found,) = [one for one in render(folder) if one["kind"] == kind and one["metadata"]["name"] == name]
    return found


def pod_specs(folder: str) -> Iterator[dict]:
    """Every specification of pods."""
    for resource in render(folder):
        if resource["kind"] == "Deployment":
            yield resource["spec"]["template"]["spec"]


def containers(folder: str) -> Iterator[dict]:
    """Every container, the ones of set-up too."""
    for pod in pod_specs(folder):
        yield from pod.get("initContainers", ())
        yield from pod["containers"]


def triton_options(folder: str) -> Options:
    """What the image's entry point makes of a kustomization's server container."""
    (found,) = [one for one in containers(folder) if one["name"] == "triton"]
    environment = {one["name"]: one.get("value", "from a secret") for one in found["env"]}
    return entrypoint.options(found["args"], environment)


def triton_arguments(folder: str) -> list[str]:
    """What tritonserver gets in a kustomization: closed interfaces, and arguments of entry point and container."""
    options = triton_options(folder)
    return [*security.arguments(options.admin_key, options.exposure), *options.arguments]
