#!/usr/bin/env python3
"""Refuse a TensorRT plan, or an engine of TensorRT for RTX, that this server cannot load, and say how to build it.

Runs before tritonserver. Triton would come to the same end later, with "Version tag does not match" or "unable to load
plan file to auto complete config".
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib.metadata
import os
import re
import sys
from pathlib import Path

from container import plan_passport, repository

MAKE_PLAN = "make plan"
LIVE_PLAN = "model.live.plan"  # of configs/live.pbtxt
MAKE_RTX = "python build/convert_to_tensorrt.py --runtime rtx"
# TensorRT for RTX runs on these and on everything newer than 12.0, NVIDIA's support matrix says.
RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0")
# cuDeviceGetAttribute's numbers for the compute capability
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76


class PlanError(RuntimeError):
    """The plan must not be served; the message says why and how to rebuild it."""


def version_numbers(text: str) -> tuple[int, ...]:
    """Leading numbers of a version: "11.1.0.106+cuda13.3" -> (11, 1, 0, 106)."""
    match = re.match(r"\d+(\.\d+)*", text.strip())
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def same_version(one: str, other: str) -> bool:
    """Whether two versions agree in all the numbers that both give; three at least must be given."""
    a, b = version_numbers(one), version_numbers(other)
    shared = min(len(a), len(b))
    return shared >= 3 and a[:shared] == b[:shared]


def check(plan: Path, tensorrt_version: str | None, compute_capability: str | None) -> None:
    """Refuse `plan` where the server could not load it.

    Args:
        plan: the ``model.plan`` or ``model.rtx.engine`` file; its passport lies beside it.
        tensorrt_version: of the server's library, e.g. "11.1.0.106", for RTX of that; None where unknown: not compared.
        compute_capability: of the GPU that serves, e.g. "8.9"; None where unknown: not compared.

    Raises:
        PlanError: plan or passport missing, not belonging together, or built for something else.
    """
    is_rtx = plan.suffix == ".engine"
    make = MAKE_RTX if is_rtx else MAKE_PLAN + (" PLAN=live" if plan.name == LIVE_PLAN else "")
    if not plan.is_file():
        raise PlanError(f"there is no {'engine' if is_rtx else 'plan'} at {plan}; build it: {make}")
    try:
        passport = plan_passport.read(plan)
    except plan_passport.PassportError as error:
        raise PlanError(f"{error}: what {plan.name} was built for is unknown; build it anew: {make}") from error
    rebuild = f"build it anew: {passport.rebuild_command()}"
    if passport.runtime == plan_passport.TENSORRT:
        rebuild = f"build it anew: {make} (or, with this TensorRT and GPU: {passport.rebuild_command()})"
    found = plan_passport.sha256(plan)
    if found != passport.plan_sha256:
        raise PlanError(
            f"{plan} is not the file its passport describes (SHA-256 {found[:12]}..., "
            f"passport {passport.plan_sha256[:12]}...): a broken copy, or one of the two was replaced; {rebuild}"
        )
    name = "TensorRT for RTX" if passport.runtime == plan_passport.RTX else "TensorRT"
    if tensorrt_version is not None and not same_version(passport.tensorrt_version, tensorrt_version):
        raise PlanError(
            f"{plan} was built by {name} {passport.tensorrt_version}, this server has {tensorrt_version}, "
            f"and it only loads in the version that built it; {rebuild}"
        )
    if compute_capability is None:
        return
    if passport.runtime == plan_passport.RTX:
        check_rtx_target(plan, passport.targets or [], compute_capability)
    elif passport.compute_capability != compute_capability:
        raise PlanError(
            f"{plan} was built on {passport.gpu_name} (compute capability {passport.compute_capability}), this GPU has "
            f"{compute_capability}, and plans only load on the kind of GPU they were built on; {rebuild}"
        )


def check_rtx_target(plan: Path, targets: list[str], compute_capability: str) -> None:
    """Refuse an engine of TensorRT for RTX on a GPU that it was not built for.

    Raises:
        PlanError: TensorRT for RTX does not serve this GPU, or the engine was built for others.
    """
    is_newer = version_numbers(compute_capability) > (12, 0)
    if compute_capability not in RTX_CAPABILITIES and not is_newer:
        raise PlanError(
            f"this GPU, capability {compute_capability}, is not served by TensorRT for RTX: build a TensorRT plan "
            f"({MAKE_PLAN}), or --config-name cuda"
        )
    # What is newer than 12.0 takes kernels of 12.0.
    if compute_capability not in targets and not (is_newer and "12.0" in targets):
        raise PlanError(
            f"{plan} was built for compute capability {', '.join(targets)}, this GPU has {compute_capability}; "
            f"build it anew: {MAKE_RTX} --for sm{compute_capability.replace('.', '')}"
        )


def rtx_library_version() -> str | None:
    """Version of TensorRT for RTX in this Python, e.g. "1.7.1.116"; None without one."""
    for cuda in ("cu13", "cu12"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(f"tensorrt-rtx-{cuda}-libs")
    return None


def check_configuration(plan: Path, config: repository.ModelConfig) -> None:
    """Refuse `plan` where nudenet_trt's configuration asks it for what it was not built for.

    Args:
        plan: the ``model.plan`` file; its passport lies beside it.
        config: of nudenet_trt.

    Raises:
        PlanError: another input shape, or a smaller maximum batch.
    """
    passport = plan_passport.read(plan)
    (tensor,) = config.input
    served, built = list(tensor.dims), list(passport.input_shape)
    if served != built:
        raise PlanError(
            f"{plan} takes input {built}, nudenet_trt's configuration says {served}: build the plan for that shape, "
            "or serve the configuration that the plan was built for"
        )
    if config.max_batch_size > passport.max_batch:
        raise PlanError(
            f"{plan} takes batches of up to {passport.max_batch}, nudenet_trt's configuration says "
            f"{config.max_batch_size}: build it with --batch-size {config.max_batch_size}, or lower max_batch_size in "
            "all four configurations"
        )


def check_repository(models: Path, config_name: str = "", device: int = 0) -> None:
    """Refuse plan or RTX engine of a model repository, if its configuration serves one, where it would not load.

    Args:
        models: the model repository.
        config_name: configs/<name>.pbtxt to serve; "" is config.pbtxt.
        device: which GPU serves.

    Raises:
        PlanError: the plan is missing or does not fit; no TensorRT or GPU is here.
        repository.ConfigError: the configuration cannot be read.
    """
    served = served_plan(models, config_name)
    if served is None:
        return
    check_here(*served, device=device)
    if served[1].platform == "tensorrt_plan" and (visible := gpu_count()) > 1:
        raise PlanError(
            f"{visible} GPUs are visible, and all instances of nudenet_trt run on GPU 0: start one container for each "
            "GPU (docker run --gpus device=1), a proxy in front spreads the requests"
        )


def served_plan(models: Path, config_name: str = "") -> tuple[Path, repository.ModelConfig] | None:
    """Plan or RTX engine that a configuration serves, and that configuration; None where it serves another engine.

    Raises:
        repository.ConfigError: there is no such configuration, or it cannot be read.
    """
    repository.check_name(config_name, models)
    config = repository.read_config(repository.config_path("nudenet_trt", config_name, models))
    if config.platform == "tensorrt_plan":
        name = config.default_model_filename or "model.plan"
    elif repository.python_engine(config) == "rtx":
        name = "model.rtx.engine"
    else:
        return None
    return models / "nudenet_trt" / "1" / name, config


def check_here(
    plan: Path,
    config: repository.ModelConfig | None,
    version: str | None = None,
    capability: str | None = None,
    device: int = 0,
) -> tuple[str, str]:
    """Refuse `plan` where it does not fit this machine; what is not given is asked of the machine.

    Args:
        config: of nudenet_trt; None: the plan is not compared with it.

    Returns:
        TensorRT's version and the GPU's compute capability.

    Raises:
        PlanError: it does not fit.
    """
    is_rtx = plan.suffix == ".engine"
    version = version or (rtx_library_version() if is_rtx else library_version())
    capability = capability or gpu_capability(device)
    check(plan, version, capability)
    if config is not None and not is_rtx:
        check_configuration(plan, config)
    if version is None:
        library = "TensorRT for RTX (requirements/rtx.txt)" if is_rtx else "TensorRT (libnvinfer.so.10 or .11)"
        raise PlanError(f"no {library} found here, so no plan can be served")
    if capability is None:
        raise PlanError(f"no GPU {device} is visible here; start the container with --gpus all")
    return version, capability


def library_version() -> str | None:
    """Version of the TensorRT library that the dynamic linker finds, e.g. "11.1.0.106"; None without one.

    Falls back to TRT_VERSION, which NVIDIA's images set.
    """
    for major in (11, 10):
        try:
            library = ctypes.CDLL(f"libnvinfer.so.{major}")
            parts = [getattr(library, f"getInferLib{part}Version")() for part in ("Major", "Minor", "Patch", "Build")]
        except (OSError, AttributeError):
            continue
        return ".".join(map(str, parts))
    return os.environ.get("TRT_VERSION")


def gpu_capability(index: int = 0) -> str | None:
    """Compute capability of a GPU, e.g. "9.0", asked of the driver; None where there is no such GPU."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), index):
        return None
    numbers = []
    for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR):
        value = ctypes.c_int()
        if driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device):
            return None
        numbers.append(value.value)
    return ".".join(map(str, numbers))


def gpu_count() -> int:
    """GPUs that this process sees, asked of the driver."""
    count = ctypes.c_int()
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    return 0 if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) else count.value


def main() -> int:
    """Check one plan against this machine. Exit status 0: it will load; 1: it will not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("plan", type=Path, help="the model.plan or model.rtx.engine file")
    parser.add_argument("--config", type=Path, help="nudenet_trt's configuration; default: config.pbtxt above the plan")
    parser.add_argument("--tensorrt-version", help="default: that of the library found here")
    parser.add_argument("--compute-capability", help="default: that of the GPU found here")
    parser.add_argument("--device", type=int, default=0, help="which GPU serves (default 0)")
    options = parser.parse_args()
    is_rtx = options.plan.suffix == ".engine"
    path = options.config or options.plan.parents[1] / "config.pbtxt"
    try:
        config = repository.read_config(path) if options.config or path.is_file() else None
        version, capability = check_here(
            options.plan, config, options.tensorrt_version, options.compute_capability, options.device
        )
    except (PlanError, repository.ConfigError) as error:
        print(f"check_plan: {error}", file=sys.stderr)
        return 1
    name = "TensorRT for RTX" if is_rtx else "TensorRT"
    print(f"check_plan: {options.plan} fits {name} {version}, compute capability {capability}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
