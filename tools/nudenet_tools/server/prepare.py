"""What must be there before a server starts: the network's graph, a configuration that fits, the machine's tuning."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rich.console import Console

from container import check_plan, repository
from container.instances import cores
from container.repository import ConfigError
from nudenet_tools import MODEL_REPOSITORY, ROOT
from nudenet_tools.server import precision_times, tuning
from nudenet_tools.server.process import Installation, Options, Ports, ServerError, find_installation

PLAN = MODEL_REPOSITORY / "nudenet_trt" / "1" / "model.plan"
ENGINE = PLAN.with_name("model.rtx.engine")
ONNX = PLAN.with_suffix(".onnx")
DYNAMIC_ONNX = PLAN.with_suffix(".dynamic.onnx")


console = Console(stderr=True, highlight=False)


def ensure_onnx() -> None:
    """Export the ONNX files if they are not there.

    Raises:
        ServerError: the export failed.
    """
    if ONNX.is_file() and DYNAMIC_ONNX.is_file():
        return
    console.print("exporting the network from the nudenet package ...")
    export = [sys.executable, str(ROOT / "build" / "export_onnx.py")]
    if subprocess.run(export, check=False).returncode != 0:
        raise ServerError("the ONNX export failed; see the message above")


def choose_config(installation: Installation, plan: Path = PLAN, engine: Path = ENGINE) -> str:
    """ "" (the committed production setting) where a plan and a TensorRT backend are there, else ``rtx`` where an
    engine of TensorRT for RTX, its library and a GPU are there, else ``cpu``.

    Raises:
        check_plan.PlanError: there is a plan or an engine, but not for this server or GPU.
    """
    if installation.has_tensorrt and plan.is_file():
        check_plan.check(plan, check_plan.library_version(), check_plan.gpu_capability())
        return ""
    version, capability = check_plan.rtx_library_version(), check_plan.gpu_capability()
    if engine.is_file() and version and capability:
        check_plan.check(engine, version, capability)
        return "rtx"
    return "cpu"


def serves_openvino(name: str, models: Path = MODEL_REPOSITORY) -> bool:
    """Whether a configuration's detector is the OpenVINO engine, whose precision `auto` is worth measuring."""
    config = repository.read_config(repository.config_path("nudenet_trt", name, models))
    return repository.python_engine(config) == "openvino"


def prepare(config_name: str = "") -> str:
    """The configuration to serve: `config_name`, or the one that fits this machine; makes what it needs.

    That is the graph, and for OpenVINO the times by which `auto` chooses the precision.

    Raises:
        ServerError: no tritonserver, a plan or an engine that does not fit, or a failed export.
    """
    try:
        name = config_name or choose_config(find_installation(), PLAN, ENGINE)
        served = check_plan.served_plan(MODEL_REPOSITORY, name)
        if served is not None:
            check_plan.check_here(*served)
    except (check_plan.PlanError, ConfigError) as error:
        raise ServerError(str(error)) from error
    if served is None:  # an engine that reads the graph itself
        ensure_onnx()
        if serves_openvino(name):
            precision_times.ensure(ONNX.parent, cores(), console.print)
    return name


def tuned_options(config_name: str = "", ports: Ports | None = None) -> Options:
    """Options of a server as ``make serve`` starts it: `prepare`, then the machine's own tuning.

    Args:
        ports: free ones where None.

    Raises:
        ServerError: see `prepare`.
    """
    name = prepare(config_name)
    return Options(ports=ports or Ports.free(), config_name=name, tuning=tuning.for_config(name))
