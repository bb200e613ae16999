"""The Kubernetes manifests as users apply them: rendered by kubectl."""

from __future__ import annotations

import functools
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import yaml

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
    """What tritonserver gets in a kustomization: from the image's entry point, then from the container."""
    (found,) = [one for one in containers(folder) if "command" not in one]
    repository = next(variable["value"] for variable in found["env"] if variable["name"] == "MODEL_REPOSITORY")
    return [argument.replace("$repository", repository) for argument in entrypoint_arguments()] + found["args"]


def entrypoint_arguments() -> list[str]:
    """Options that the image's entry point gives tritonserver."""
    script = (KUBERNETES.parents[1] / "tools" / "container" / "entrypoint.sh").read_text()
    _, line = script.replace("\\\n", " ").split('" tritonserver ', 1)
    return [word for word in shlex.split(line.splitlines()[0]) if word.startswith("--")]
