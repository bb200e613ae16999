"""What a figure was measured on and with: machine, versions, command."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from nudenet_tools import ROOT
from nudenet_tools.server.tuning import cores

PACKAGES = ("nvidia-pytriton", "tritonclient", "openvino", "onnxruntime", "onnxruntime-gpu", "simplejpeg", "numpy")


def _cpu_name() -> str:
    match = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return match.group(1).strip() if match else platform.processor()


def _gpu_name() -> str | None:
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    name, driver = result.stdout.splitlines()[0].split(", ")
    return f"{name}, driver {driver}"


def _commit() -> str | None:
    """Of the tree that is measured, with ``-dirty`` where files differ from it; None outside of a git checkout."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def describe() -> dict:
    """Machine, versions, command and date, to stand beside every figure."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    flags = re.search(r"flags\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    features = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
    present = flags.group(1).split() if flags else []
    return {
        "cpu": _cpu_name(),
        "cores": cores(),
        "cpu_features": [feature for feature in features if feature in present],
        "gpu": _gpu_name(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": versions,
        "commit": _commit(),
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
