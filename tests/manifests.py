"""The Kubernetes manifests as users apply them: rendered by kubectl."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path

import yaml

KUBERNETES = Path(__file__).resolve().parent.parent / "deploy" / "kubernetes"
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
    """Every specification of pods, also KServe's."""
    for resource in render(folder):
        if resource["kind"] in ("Deployment", "Job"):
            yield resource["spec"]["template"]["spec"]
        elif resource["kind"] == "ServingRuntime":
            yield resource["spec"]


def containers(folder: str) -> Iterator[dict]:
    """Every container, the ones of set-up too."""
    for pod in pod_specs(folder):
        yield from pod.get("initContainers", ())
        yield from pod["containers"]


def triton_arguments(folder: str) -> list[str]:
    """What the one tritonserver container of a kustomization passes to tritonserver."""
    (found,) = [one for one in containers(folder) if one["command"] == ["tritonserver"]]
    return found["args"]
