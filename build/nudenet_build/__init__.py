"""What the commands in build/ share: graphs, TensorRT, calibration, evaluation.

The one place of build/ that extends the import path: the code of the steps, which travels with the model repository,
and the tools that travel into images.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODEL_REPOSITORY = ROOT / "model_repository"
sys.path += [
    str(folder) for folder in (MODEL_REPOSITORY / "nudenet" / "1", ROOT / "tools") if str(folder) not in sys.path
]

import nudenet_steps  # noqa: E402, F401  before any ONNX Runtime: it switches its telemetry off
