#!/usr/bin/env python3
"""perf_analyzer on the ensemble: its input made from pictures, a server if there is none, its own output."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import tritonclient.grpc
import tritonclient.http
import typer
from rich.console import Console
from tritonclient.utils import InferenceServerException

from container import repository
from nudenet_client import PictureError
from nudenet_client.transport import grpc_options
from nudenet_tools import ROOT
from nudenet_tools.bench import perf_analyzer
from nudenet_tools.pictures import files as picture_files
from nudenet_tools.server import process
from nudenet_tools.server.prepare import tuned_options

FRAME = ROOT / "tests" / "data" / "astronaut_720p.jpg"
# One request at a time shows the latency of a quiet process, 16 at once its ceiling: two full batches.
LOAD = ("--concurrency-range", "1:16:15")
LOAD_OPTIONS = (
    "--concurrency-range",
    "--request-rate-range",
    "--request-intervals",
    "--periodic-concurrency-range",
)

console = Console(stderr=True, highlight=False, soft_wrap=True)


class Protocol(StrEnum):
    """Which front end of the server is asked."""

    grpc = "grpc"
    http = "http"


def read_pictures(pictures: list[Path]) -> list[bytes]:
    """The JPEG files to send, in order.

    Raises:
        FileNotFoundError: a folder without pictures, or a file that cannot be read; names it.
    """
    files = []
    for source in picture_files.find([str(path) for path in pictures]):
        try:
            files.append(source.read())
        except PictureError as error:
            raise FileNotFoundError(f"{source.name}: {error.reason}") from error
    return files


def asked_model(arguments: list[str]) -> str:
    """The model that perf_analyzer's options name; the ensemble where they name none."""
    for option, value in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        if option == "-m":
            return value
        if option.startswith("-m="):
            return option[len("-m=") :]
    return "nudenet"


def takes_pixels(url: str, protocol: Protocol, model: str) -> bool:
    """Whether `model` has the optional UINT8 input ``pixels``; perf_analyzer must be told what to send then."""
    try:
        if protocol is Protocol.grpc:
            with tritonclient.grpc.InferenceServerClient(**grpc_options(url)) as grpc_client:
                metadata = grpc_client.get_model_metadata(model, as_json=True)
        else:
            with tritonclient.http.InferenceServerClient(url) as http_client:
                metadata = http_client.get_model_metadata(model)
    except InferenceServerException:
        return False  # perf_analyzer says it better
    return any(tensor["name"] == "pixels" for tensor in metadata.get("inputs", []))


def with_defaults(arguments: list[str], url: str, protocol: Protocol, input_file: Path | None) -> list[str]:
    """perf_analyzer's command line: what the user said, and our settings where nothing was said.

    Args:
        input_file: what to send; None lets perf_analyzer make it up.
    """

    def said(*options: str) -> bool:
        return any(argument.split("=", 1)[0] in options for argument in arguments)

    command = ["-u", url, "-i", protocol.value]
    command += [] if said("-m") else ["-m", "nudenet"]
    command += [] if said("--input-data") or input_file is None else ["--input-data", str(input_file)]
    command += [] if said(*LOAD_OPTIONS) else LOAD
    return [*command, *arguments]


def analyze(arguments: list[str]) -> int:
    """Run perf_analyzer on this terminal; returns its exit status."""
    # Ctrl-C is for perf_analyzer, which then finishes and reports what it has measured.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        with perf_analyzer.environment() as variables:
            return subprocess.call([str(perf_analyzer.binary()), *arguments], env=variables)
    finally:
        signal.signal(signal.SIGINT, before)


def perf(
    context: typer.Context,
    pictures: Annotated[list[Path] | None, typer.Option(help="Picture file or folder; may be repeated.")] = None,
    url: Annotated[str, typer.Option("--url", "-u", help="HOST:PORT of a running server; else one is started.")] = "",
    protocol: Annotated[Protocol, typer.Option("--protocol", "-i", help="Front end to ask.")] = Protocol.grpc,
    config_name: Annotated[str, typer.Option(help="Of the server that is started: configs/<name>.pbtxt.")] = "",
    input_only: Annotated[
        Path | None, typer.Option(help="Only write perf_analyzer's input file here, for use elsewhere.")
    ] = None,
) -> None:
    """Measure the server with perf_analyzer; options it knows and this does not are passed on to it.

    Sends the bundled 720p frame unless --pictures names others; with -m nudenet_trt its pixels.
    Exit status is perf_analyzer's.
    """
    model = asked_model(context.args)
    if input_only is not None and model != "nudenet":
        raise typer.BadParameter("writes pictures for nudenet; leave out -m", param_hint="--input-only")
    try:
        files = read_pictures(pictures or [FRAME])
        if input_only is not None:
            perf_analyzer.write_input(input_only, files)
            console.print(f"{input_only}: pictures: {len(files)}, {input_only.stat().st_size >> 10} KB")
            return
        with contextlib.ExitStack() as stack:
            if not url:
                running = stack.enter_context(process.Server(tuned_options(config_name)))
                url = running.grpc_url if protocol is Protocol.grpc else running.http_url
                console.print(f"started a server on {url}: {running.engine()}")
                console.print(
                    f"it shares {len(os.sched_getaffinity(0))} cores with the load: --url measures a server elsewhere"
                )
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nudenet-perf-")))
            input_file: Path | None = folder / "pictures.json"
            if model == "nudenet":
                perf_analyzer.write_input(folder / "pictures.json", files)
            elif takes_pixels(url, protocol, model):
                perf_analyzer.write_pixels(folder / "pictures.json", files)
            else:
                input_file = None
            command = with_defaults(context.args, url, protocol, input_file)
            console.print(f"pictures: {len(files)}; perf_analyzer {' '.join(command)}\n", markup=False)
            status = analyze(command)
    except (OSError, perf_analyzer.PerfAnalyzerError, process.ServerError, repository.ConfigError) as error:
        console.print(f"perf: {error}", style="red", markup=False)
        raise typer.Exit(1) from error
    raise typer.Exit(status)


app = typer.Typer(add_completion=False)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(perf)

if __name__ == "__main__":
    sys.exit(app())
