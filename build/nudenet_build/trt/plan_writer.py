"""Put a built plan and its passport in place."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Any

from container import plan_passport
from nudenet_build.trt.builder import BuildOptions, BuiltPlan
from nudenet_build.trt.cuda_device import Gpu
from nudenet_steps.files import write_whole

READABLE = 0o644  # the server runs as another user


def capability(target: str) -> str:
    """ "SM89" to "8.9"."""
    digits = target.removeprefix("SM")
    return f"{digits[:-1]}.{digits[-1]}"


def write(
    output: Path,
    built: BuiltPlan,
    options: BuildOptions,
    gpu: Gpu | None,
    tensorrt_version: str,
    precision: str,
    onnx_path: Path,
    accuracy: dict[str, Any] | None,
    convolutions: dict[str, int] | None = None,
) -> plan_passport.Passport:
    """Write ``model.plan`` or ``model.rtx.engine`` and its passport, each as a whole or not at all.

    The plan goes first: a crash between the two leaves a pair that `check_plan` refuses, never one that it takes.

    Args:
        output: the plan's path.
        gpu: that built it; None where TensorRT for RTX built without one.
        tensorrt_version: of the library that built it.
        precision: of the graph, e.g. INT8+FP16.
        onnx_path: the graph that was compiled.
        accuracy: result of the comparison with ONNX Runtime; None where none was made.
        convolutions: how many run in which type; None where the library did not tell.

    Returns:
        the passport as written.
    """
    write_whole(output, built.plan, READABLE)
    passport = plan_passport.Passport(
        tensorrt_version=tensorrt_version,
        gpu_name=gpu.name if gpu else "",
        compute_capability=gpu.compute_capability if gpu else "",
        precision=precision,
        min_batch=options.min_batch,
        preferred_batch=options.preferred_batch,
        max_batch=options.max_batch,
        input_shape=built.input_shape,
        workspace_gb=options.workspace_gb,
        optimization_level=options.optimization_level,
        onnx_sha256=plan_passport.sha256(onnx_path),
        plan_sha256=plan_passport.sha256(output),
        built_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        triton_release=os.environ.get("NVIDIA_TRITON_SERVER_VERSION"),  # set by Triton's images
        accuracy=accuracy,
        runtime=options.runtime.value,
        targets=[capability(name) for name in options.targets] or None,
        convolutions=convolutions,
    )
    write_passport(output, passport)
    return passport


def write_passport(plan: Path, passport: plan_passport.Passport) -> None:
    """Write `passport` beside `plan`."""
    write_whole(plan_passport.path_for(plan), plan_passport.to_json(passport), READABLE)
