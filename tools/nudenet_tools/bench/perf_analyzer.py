"""The real perf_analyzer from the tritonclient wheel: its libraries, its input file, its results as numbers."""

from __future__ import annotations

import base64
import contextlib
import csv
import importlib.util
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from nudenet_steps.pipeline import Preprocessor
from nudenet_steps.preprocess.canvas import Canvas

# perf_analyzer wants these by their system names; nvidia-pytriton carries them under names of its own.
_LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}


class PerfAnalyzerError(RuntimeError):
    """perf_analyzer is missing or ended with an error; the message holds what it printed."""


def binary() -> Path:
    """Path of perf_analyzer.

    Raises:
        PerfAnalyzerError: the installed tritonclient does not carry it.
    """
    beside_python = Path(sys.executable).parent / "perf_analyzer"
    found = str(beside_python) if beside_python.is_file() else shutil.which("perf_analyzer")
    if found is None:
        raise PerfAnalyzerError(f"no {beside_python}: tritonclient 2.51.0 for Linux brings it; run make setup")
    return Path(found)


def link_libraries(folder: Path) -> None:
    """Fill `folder` with links under which the dynamic linker finds perf_analyzer's libraries."""
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise PerfAnalyzerError("nvidia-pytriton is not installed: run make setup")
    bundled = Path(spec.origin).parent.parent / "nvidia_pytriton.libs"
    for name, pattern in _LIBRARIES.items():
        found = sorted(bundled.glob(pattern))
        if not found:
            raise PerfAnalyzerError(f"no {pattern} in {bundled}: reinstall nvidia-pytriton")
        (folder / name).symlink_to(found[0])


def write_input(path: Path, pictures: Sequence[bytes]) -> None:
    """perf_analyzer's JSON input file: the pictures in rotation, as BYTES elements with their length in front."""
    elements = [base64.b64encode(struct.pack("<I", len(data)) + data).decode() for data in pictures]
    path.write_text(json.dumps({"data": [{"image": {"b64": element}} for element in elements]}))


def write_pixels(path: Path, pictures: Sequence[bytes]) -> None:
    """perf_analyzer's input file for `nudenet_trt` itself: UINT8 pixels, all on the first picture's canvas.

    Only `pixels` is in it, so the model's other, optional input is not sent; the shape answers its open dimensions.
    """
    preprocess = Preprocessor()
    first, _ = preprocess(pictures[0])
    preprocess = Preprocessor([Canvas(*first.shape[1:])])
    tensors = [preprocess(data)[0] for data in pictures]
    data = [{"pixels": {"content": pixels.ravel().tolist(), "shape": list(pixels.shape)}} for pixels in tensors]
    path.write_text(json.dumps({"data": data}))


@contextlib.contextmanager
def environment() -> Iterator[dict[str, str]]:
    """This process's environment, with perf_analyzer's libraries on LD_LIBRARY_PATH while the context lasts."""
    with tempfile.TemporaryDirectory(prefix="nudenet-perf-") as folder:
        link_libraries(Path(folder))
        search = [folder, os.environ.get("LD_LIBRARY_PATH", "")]
        yield os.environ | {"LD_LIBRARY_PATH": os.pathsep.join(entry for entry in search if entry)}


def run(arguments: Sequence[str], timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run perf_analyzer with its libraries found.

    Raises:
        PerfAnalyzerError: it did not end with status 0.
    """
    with environment() as variables:
        result = subprocess.run(
            [str(binary()), *arguments], env=variables, capture_output=True, text=True, timeout=timeout, check=False
        )
    if result.returncode:
        raise PerfAnalyzerError(
            f"perf_analyzer ended with {result.returncode}:\n{result.stdout[-3000:]}{result.stderr[-1000:]}"
        )
    return result


def measure(arguments: Sequence[str], timeout: float | None = None) -> list[dict[str, float]]:
    """Run with ``-f`` and return one row a load level: perf_analyzer's own columns, latencies in microseconds."""
    with tempfile.NamedTemporaryFile(suffix=".csv", prefix="nudenet-perf-") as report:
        run([*arguments, "-f", report.name], timeout)
        with Path(report.name).open(newline="") as file:
            return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
