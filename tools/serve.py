#!/usr/bin/env python3
"""Run the model repository on this machine: build what is missing, start tritonserver, wait for Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Annotated

import repository
import rich.markup
import server
import supervisor
import typer
from rich.console import Console

PLAN = repository.MODEL_REPOSITORY / "nudenet_trt" / "1" / "model.plan"
ONNX = PLAN.with_suffix(".onnx")

console = Console(stderr=True, highlight=False)


def ensure_onnx() -> None:
    """Export the ONNX file if it is not there.

    Raises:
        server.ServerError: the export failed.
    """
    if ONNX.is_file():
        return
    console.print("exporting the network from the nudenet package ...")
    export = [sys.executable, str(repository.ROOT / "build" / "export_onnx.py")]
    if subprocess.run(export, check=False).returncode != 0:
        raise server.ServerError("the ONNX export failed; see the message above")


def choose_config(installation: server.Installation, plan: Path = PLAN) -> str:
    """ "" (the committed production setting) where a plan and a TensorRT backend are there, else ``cpu``."""
    return "" if installation.has_tensorrt and plan.is_file() else "cpu"


def _show(line: str) -> None:
    """Relay what a person must see: warnings and errors."""
    if line[:1] in ("W", "E", "F") and not any(noise in line for noise in server.NO_GPU_NOISE):
        sys.stderr.write(line + "\n")


def _introduce(running: server.Server) -> None:
    """Say where the server is, once it is ready."""
    console.print(f"[bold]ready[/] after {running.seconds_to_ready:.1f} s: {running.engine()}")
    console.print(f"  HTTP     http://{running.http_url}")
    console.print(f"  gRPC     {running.grpc_url}")
    console.print(f"  metrics  {running.metrics_url}")
    console.print("development server, loopback only; Ctrl-C stops it")


def _report(event: str) -> None:
    """One line about a failure or a recovery."""
    console.print(f"[yellow]{time.strftime('%H:%M:%S')}[/] {rich.markup.escape(event)}")


def serve(
    config_name: Annotated[
        str, typer.Option(help="configs/<name>.pbtxt to use; default: chosen by what is there.")
    ] = "",
    http_port: Annotated[int, typer.Option(envvar="HTTP_PORT", min=1, max=65535)] = 8000,
    grpc_port: Annotated[int, typer.Option(envvar="GRPC_PORT", min=1, max=65535)] = 8001,
    metrics_port: Annotated[int, typer.Option(envvar="METRICS_PORT", min=1, max=65535)] = 8002,
    verbose: Annotated[bool, typer.Option(help="Show everything tritonserver prints.")] = False,
) -> None:
    """Serve JPEG bytes in, detections out, on this machine's loopback interface until Ctrl-C."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        name = config_name or choose_config(server.find_installation())
        if name:
            ensure_onnx()
        options = server.Options(
            ports=server.Ports(http_port, grpc_port, metrics_port),
            config_name=name,
            on_log=(lambda line: print(line, file=sys.stderr)) if verbose else _show,
        )
        supervisor.Supervisor(options, _report).run(stopped, _introduce)
    except (server.ServerError, repository.ConfigError) as error:
        console.print(f"[red]serve:[/] {error}", markup=True)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    typer.run(serve)
