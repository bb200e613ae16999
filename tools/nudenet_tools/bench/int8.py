"""A repository whose detector is the INT8 engine: the user's own graph if it is there, else one made for this run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from container import repository
from nudenet_tools import ROOT

DETECTOR = Path("nudenet_trt") / "1"
GRAPH = "model.int8.onnx"


class Int8Error(RuntimeError):
    """The INT8 graph cannot be made; the message holds what its script printed."""


def prepare(scratch: Path, files: Sequence[bytes]) -> tuple[Path, str]:
    """Find or make the INT8 graph.

    Args:
        scratch: empty folder for a repository with a made graph; the user's own repository is left alone.
        files: JPEG files to calibrate on where no graph is there.

    Returns:
        the model repository to serve, and what the graph was calibrated on.

    Raises:
        Int8Error: making it failed.
    """
    if (repository.MODEL_REPOSITORY / DETECTOR / GRAPH).is_file():
        return repository.MODEL_REPOSITORY, "the user's calibration"
    models, frames = scratch / "models", scratch / "frames"
    shutil.copytree(repository.MODEL_REPOSITORY, models, ignore=shutil.ignore_patterns("*.plan*", "__pycache__"))
    frames.mkdir()
    count = _write_variants(frames, files)
    graph, calibration = models / DETECTOR / "model.dynamic.onnx", scratch / "calibration.npy"
    _run("collect_calibration_data.py", frames, "--output", calibration, "--model", graph, "--least-difference", 0)
    _run("precision.py", "--precision", "INT8", "--calibration-data", calibration, "--onnx", graph)
    return models, f"{count} variants of the bundled pictures: good for speed, not for serving"


def _write_variants(folder: Path, files: Sequence[bytes]) -> int:
    """Mirrored, brighter and darker pictures; the speed of the graph does not depend on them."""
    count = 0
    for data in files:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        for gain in np.linspace(0.4, 1.3, 6):
            for pixels in (picture, picture[:, ::-1]):
                cv2.imwrite(str(folder / f"{count:03}.jpg"), cv2.convertScaleAbs(pixels, alpha=float(gain)))
                count += 1
    return count


def _run(script: str, *arguments: object) -> None:
    command = [sys.executable, str(ROOT / "build" / script), *(str(argument) for argument in arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise Int8Error(f"{script} ended with status {result.returncode}:\n{result.stdout}{result.stderr}")
