#!/usr/bin/env python3
"""Run the model repository on this machine: build what is missing, start tritonserver, wait for Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, TypeAlias

import rich.markup
import typer
from rich.console import Console

from container import repository, security, supervisor
from container.process import Server
from nudenet_tools.server import process, tuning
from nudenet_tools.server.prepare import ensure_onnx, prepare

Pem: TypeAlias = Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="PEM file of the server.")]

STAND_INS = {"openvino": "openvino", "slow": "stand_in_slow", "fast": "stand_in_fast"}

console = Console(stderr=True, highlight=False)


def _show(line: str) -> None:
    """Relay what a person must see: warnings and errors."""
    if line[:1] in ("W", "E", "F") and not any(noise in line for noise in process.NO_GPU_NOISE):
        sys.stderr.write(line + "\n")


def _introduce(running: Server) -> None:
    """Say where the server is, once it is ready."""
    console.print(f"[bold]ready[/] after {running.seconds_to_ready:.1f} s: {running.engine_and_reason()}")
    console.print(f"  HTTP     http://{running.http_url}")
    console.print(f"  gRPC     {running.grpc_url}")
    console.print(f"  metrics  {running.metrics_url}")
    exposure = running.options.exposure
    if exposure:
        who = f"with a certificate signed by {exposure.client_ca}" if exposure.client_ca else "who can reach it"
        console.print(
            f"[yellow]exposed:[/] gRPC with TLS on {exposure.address}:{running.ports.grpc} for everybody {who};"
        )
        console.print("  HTTP and metrics stay on loopback, Triton has no TLS for them")
        console.print("development server: for production use NVIDIA's container, see SECURITY.md; Ctrl-C stops it")
    else:
        console.print("development process, loopback only; Ctrl-C stops it")


def _report(event: str) -> None:
    """One line about a failure or a recovery."""
    console.print(f"[yellow]{time.strftime('%H:%M:%S')}[/] {rich.markup.escape(event)}")


def serve(
    config_name: Annotated[
        str, typer.Option(help="configs/<name>.pbtxt to use; default: chosen by what is there.")
    ] = "",
    precision: Annotated[
        str, typer.Option(help="Of the detector: auto, FP32, BF16, INT8 (cpu); FP32, FP16 (cuda).")
    ] = "",
    decoder: Annotated[str, typer.Option(help="For cuda: cpu, or nvjpeg for the GPU's JPEG engine.")] = "",
    rehearse: Annotated[
        bool, typer.Option(help="The production configuration as it is, with a stand-in engine for the plan.")
    ] = False,
    stand_in: Annotated[
        str, typer.Option(help="With --rehearse: openvino, or slow or fast (no network, fixed answers).")
    ] = "openvino",
    http_port: Annotated[int, typer.Option(envvar="HTTP_PORT", min=1, max=65535)] = 8000,
    grpc_port: Annotated[int, typer.Option(envvar="GRPC_PORT", min=1, max=65535)] = 8001,
    metrics_port: Annotated[int, typer.Option(envvar="METRICS_PORT", min=1, max=65535)] = 8002,
    verbose: Annotated[bool, typer.Option(help="Show everything tritonserver prints.")] = False,
    expose: Annotated[
        str, typer.Option(help="Address for gRPC from other machines, e.g. 0.0.0.0; needs --tls-cert and --tls-key.")
    ] = "",
    tls_cert: Pem = None,
    tls_key: Pem = None,
    tls_ca: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Serve only clients with a certificate of this CA.")
    ] = None,
) -> None:
    """Serve JPEG bytes in, detections out, on this machine's loopback interface until Ctrl-C."""
    if expose and not (tls_cert and tls_key):
        raise typer.BadParameter("needs --tls-cert and --tls-key: pictures never cross a network unencrypted")
    if not expose and (tls_cert or tls_key or tls_ca):
        raise typer.BadParameter("TLS files need --expose ADDRESS: loopback is not encrypted")
    if rehearse and (config_name or precision or decoder):
        raise typer.BadParameter("--rehearse serves config.pbtxt as it is: leave out the options that change it")
    if stand_in not in STAND_INS:
        raise typer.BadParameter(f"must be one of {', '.join(STAND_INS)}, got {stand_in!r}", param_hint="--stand-in")
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        if rehearse:
            ensure_onnx()
        name = "" if rehearse else prepare(config_name)
        options = process.Options(
            ports=process.Ports(http_port, grpc_port, metrics_port),
            config_name=name,
            tuning=repository.Tuning() if rehearse else tuning.for_config(name, precision, decoder),
            stand_in=STAND_INS[stand_in] if rehearse else "",
            admin_key=os.environ.get("NUDENET_ADMIN_KEY") or security.new_key(),
            exposure=security.Exposure(expose, tls_cert, tls_key, tls_ca) if expose and tls_cert and tls_key else None,
            on_log=(lambda line: print(line, file=sys.stderr)) if verbose else _show,
        )
        supervisor.Supervisor(process.Server(options), _report).run(stopped, _introduce)
    except (process.ServerError, repository.ConfigError) as error:
        console.print(f"[red]serve:[/] {rich.markup.escape(str(error))}", markup=True)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    typer.run(serve)
