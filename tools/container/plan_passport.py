"""The passport of an engine file: ``model.plan.json`` beside ``model.plan`` says what the plan was built for.

A plan only loads under the TensorRT version and on the kind of GPU it was built with, an engine of TensorRT for RTX
(``model.rtx.engine``) under its version and on the kinds of GPU it was built for; both say so themselves only in words
that help nobody. Standard library only: containers read it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

FORMAT = 1
TENSORRT, RTX = "tensorrt", "rtx"  # runtimes, as --runtime names them


class PassportError(ValueError):
    """A passport that is missing or cannot be read."""


@dataclasses.dataclass(frozen=True)
class Passport:
    """What a plan was built from, with and for."""

    tensorrt_version: str  # of the library, e.g. 11.1.0.106; for RTX that of TensorRT for RTX, e.g. 1.7.1.116
    gpu_name: str  # of the GPU that built it; empty where RTX built without one
    compute_capability: str  # of that GPU, e.g. 9.0
    precision: str  # FP32, FP16 or INT8+FP16
    min_batch: int
    preferred_batch: int  # the batch size that was tuned for
    max_batch: int
    input_shape: list[int]  # channels, height, width; -1 for the last two where every canvas is served
    workspace_gb: float
    optimization_level: int
    onnx_sha256: str  # of the graph TensorRT compiled
    plan_sha256: str
    built_at: str  # ISO 8601, UTC
    triton_release: str | None = None  # e.g. 26.07, where built inside Triton's image
    accuracy: dict[str, Any] | None = None  # of the comparison with ONNX Runtime, where one was made
    runtime: str = TENSORRT
    targets: list[str] | None = None  # compute capabilities that RTX compiled for; None: that of the GPU
    convolutions: dict[str, int] | None = None  # how many run in which type, where the compiler tells

    def rebuild_command(self) -> str:
        """The command that builds the same kind of plan again."""
        precision = self.precision.split("+")[0]
        command = f"python build/convert_to_tensorrt.py --precision {precision} --batch-size {self.max_batch} "
        if self.runtime == RTX:
            names = ",".join(f"sm{target.replace('.', '')}" for target in self.targets or ())
            command += f"--runtime rtx --for {names}"
        else:
            command += f"--workspace {self.workspace_gb:g}"
            if self.input_shape[1:] == [-1, -1]:
                command += " --live"
        return f"{command} --calibration-data calib_data.npy" if precision == "INT8" else command


def path_for(plan: Path) -> Path:
    """Where the passport of `plan` lies: ``model.plan`` -> ``model.plan.json``."""
    return plan.with_name(f"{plan.name}.json")


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def to_json(passport: Passport) -> bytes:
    """What stands in the file at `path_for`."""
    return f"{json.dumps({'format': FORMAT, **dataclasses.asdict(passport)}, indent=2)}\n".encode()


def read(plan: Path) -> Passport:
    """The passport beside `plan`.

    Raises:
        PassportError: missing, damaged, or of a format this version does not know.
    """
    path = path_for(plan)
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise PassportError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise PassportError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise PassportError(f"{path} is not a passport of format {FORMAT}")
    fields = {field.name: field for field in dataclasses.fields(Passport)}
    required = {name for name, field in fields.items() if field.default is dataclasses.MISSING}
    wrong = sorted((required - content.keys()) | (content.keys() - fields.keys()))
    if wrong:
        raise PassportError(f"{path}: fields missing or unknown: {', '.join(wrong)}")
    passport = Passport(**content)
    if passport.runtime not in (TENSORRT, RTX):
        raise PassportError(f"{path}: runtime must be {TENSORRT} or {RTX}, got {passport.runtime!r}")
    of_gpu = ("gpu_name", "compute_capability") if passport.runtime == TENSORRT else ()
    for name in ("tensorrt_version", "precision", "plan_sha256", *of_gpu):
        if not isinstance(content[name], str) or not content[name]:
            raise PassportError(f"{path}: {name} must be text, got {content[name]!r}")
    if passport.runtime == RTX and not passport.targets:
        raise PassportError(f"{path}: targets must list compute capabilities, got {passport.targets!r}")
    return passport
