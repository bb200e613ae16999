"""ONNX Runtime as an engine on the CPU."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from container import repository

CODE = """
import sys
from pathlib import Path
from nudenet_steps.engines.onnxruntime_cpu import OnnxRuntimeEngine
OnnxRuntimeEngine(Path(sys.argv[1]))
"""


def test_nothing_is_collected_or_sent(onnx_path, tmp_path):
    """ONNX Runtime's telemetry leaves a device id at home, if it may."""
    steps = repository.MODEL_REPOSITORY / "nudenet" / "1"
    # Nothing else of this environment: ONNX Runtime is quiet by itself under CI, and under its own variables.
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(steps)}

    def files(**more: str) -> list[str]:
        subprocess.run(
            [sys.executable, "-c", CODE, str(Path(onnx_path).parent)],
            env=environment | more,
            check=True,
            capture_output=True,
            timeout=120,
        )
        return [path.name for path in tmp_path.rglob("*") if path.is_file()]

    assert files() == []
    spec = importlib.util.find_spec("onnxruntime")
    (library,) = (Path(spec.origin).parent / "capi").glob("onnxruntime_pybind11_state*.so")
    assert (files(ORT_DISABLE_TELEMETRY="0") != []) == (b"OneCollector" in library.read_bytes())
