#!/usr/bin/env python3
"""Detect in millions of pictures: a listing in, Parquet files of detections out.

Against Triton servers (``--url``, repeat it for several), or with the engine embedded in each process (no ``--url``).
Runs on this machine's cores, or on a Ray cluster with ``--address``. A run that was stopped or killed goes on where
it was when it is started again: pictures that have a row in the output are skipped.

    python tools/bulk.py pictures/ --output found/ --url 127.0.0.1:8001
    python tools/bulk.py s3://bucket/prefix --output s3://bucket/found --address auto
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
import time
from collections.abc import Iterable, Iterator
from typing import Annotated

import pyarrow as pa
import ray
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nudenet_client import Parameters
from nudenet_tools import ROOT, options
from nudenet_tools.bulk import sources
from nudenet_tools.bulk.parts import Parts
from nudenet_tools.bulk.worker import BULK_PRIORITY, Detector, EmbeddedDetector, ServerDetector, Worker
from nudenet_tools.server.prepare import ensure_onnx
from nudenet_tools.server.process import ServerError

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's future default; without it, it warns
os.environ.setdefault("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "1")  # a cluster needs model.onnx, too

console = Console()
errors = Console(stderr=True)
OBJECT_STORE = 128 << 20  # bytes on this machine; only names travel
SHORTEST_RATE = 5.0  # seconds; below it the rate says nothing
SERVER_ACTOR_CPUS = 0.5  # waits for the server most of the time
# What a cluster's workers do not need of this repository.
EXCLUDES = [".git", ".venv", ".cache", "tests", "docs", "clients/node", "deploy", "out", "scratch"]


class BulkError(RuntimeError):
    """The run cannot go on; the message says why."""


def make_detector(urls: tuple[str, ...], parameters: Parameters, access: options.Access) -> Detector:
    """Called in each actor: clients and engines do not travel."""
    return ServerDetector(urls, parameters, access) if urls else EmbeddedDetector(parameters)


def pending(names: Iterable[str], done: set[str], part_size: int) -> list[pa.Table]:
    """Names without a row, each once, in tables of at most `part_size`; one table becomes one part."""
    rest = iter(name for name in dict.fromkeys(names) if name not in done)
    return [pa.table({"source": part}) for part in iter(lambda: list(itertools.islice(rest, part_size)), [])]


def connect(address: str | None, cpus: int | None) -> None:
    """Start Ray on this machine, or connect to a cluster and send it this repository's code."""
    start = functools.partial(ray.init, logging_level=logging.CRITICAL, log_to_driver=False)
    if address is None:
        tools = str(ROOT / "tools")  # where the actors' processes find our modules
        os.environ["PYTHONPATH"] = os.pathsep.join([tools, *filter(None, [os.environ.get("PYTHONPATH")])])
        start(num_cpus=cpus, object_store_memory=OBJECT_STORE, include_dashboard=False)
    else:
        start(
            address,
            runtime_env={
                "working_dir": str(ROOT),
                "excludes": EXCLUDES,
                "env_vars": {"PYTHONPATH": "tools:clients/python"},
            },
        )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def run(
    tables: list[pa.Table],
    output: str,
    urls: tuple[str, ...],
    parameters: Parameters,
    actors: int,
    access: options.Access,
) -> Iterator[tuple[int, int]]:
    """Work through `tables`; yields (pictures, bad ones) of each part when it is written.

    Raises:
        BulkError: the servers are gone, and stayed away.

    Ray keeps a bounded number of parts in flight, so a slow server or store slows the reading down.
    """
    detector = functools.partial(make_detector, urls, parameters, access)
    parts = ray.data.from_arrow(tables).map_batches(
        Worker,
        fn_constructor_args=(output, detector, parameters),
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=SERVER_ACTOR_CPUS if urls else 1,
    )
    # What goes wrong is raised as well, and reported once.
    for logger in ("ray", "ray.data"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    for row in parts.iter_rows():
        if row["failure"]:
            raise BulkError(row["failure"])
        yield int(row["pictures"]), int(row["bad"])


def main(
    source: Annotated[
        str, typer.Argument(help="Folder, quoted glob, s3:// or gs:// prefix, .parquet or .txt listing.")
    ],
    output: Annotated[str, typer.Option(help="Folder or object store prefix for the Parquet files.")],
    url: Annotated[
        list[str] | None, typer.Option(help="A server's gRPC host and port; default: embedded engine.")
    ] = None,
    tls: options.UseTls = False,
    ca: options.Ca = None,
    api_key_file: options.ApiKeyFile = None,
    column: Annotated[str, typer.Option(help="Column of a Parquet listing that holds the names.")] = "source",
    actors: Annotated[int, typer.Option(min=0, help="Processes; 0: two a server, or one a core.")] = 0,
    part_size: Annotated[
        int, typer.Option(min=1, help="Pictures in one Parquet file; lost when it is interrupted.")
    ] = 1000,
    confidence_threshold: Annotated[float | None, typer.Option(help="Least confidence, 0 to 1.")] = None,
    policy: options.Policy = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster, e.g. auto; default: this machine.")] = None,
) -> None:
    """Detect in all pictures of SOURCE and write one row for each to OUTPUT. Run it again to go on."""
    access = options.access(tls, ca, api_key_file)
    urls, parameters = tuple(url or ()), Parameters(confidence_threshold, priority=BULK_PRIORITY, policy=policy)
    try:
        note = functools.partial(console.print, markup=False, soft_wrap=True)
        done = Parts(output).done()
        tables = pending(sources.listing(source, column, note), done, part_size)
        if tables and not urls and address is None:
            ensure_onnx()
    except (sources.SourceError, ServerError, OSError, pa.ArrowException) as error:
        errors.print(f"bulk: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(2) from error
    total = sum(len(table) for table in tables)
    console.print(f"{total} pictures to do, {len(done)} done before")
    if not total:
        return
    workers = min(len(tables), actors or (2 * len(urls) if urls else os.cpu_count() or 1))
    try:
        connect(address, None if address else max(workers, os.cpu_count() or 1))
    except (ConnectionError, RuntimeError, ValueError) as error:
        errors.print(f"bulk: Ray does not start: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(2) from error
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bad, finished, begin = 0, [], time.monotonic()
    try:
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("pictures", total=total)
            for pictures, refused in run(tables, output, urls, parameters, workers, access):
                bad += refused
                finished.append((time.monotonic(), pictures))
                progress.advance(bar, pictures)
    except (BulkError, ray.exceptions.RayError) as error:
        errors.print(
            f"bulk: {error}\nwhat is written stays; start again to go on", style="red", markup=False, soft_wrap=True
        )
        raise typer.Exit(1) from error
    seconds = finished[-1][0] - begin
    console.print(f"{total} pictures in {seconds:.1f} s, {bad} of them bad: {output}", soft_wrap=True)
    if (running := finished[-1][0] - finished[0][0]) > SHORTEST_RATE:  # starting the processes takes its time, too
        rate = (total - finished[0][1]) / running
        console.print(f"{rate:.0f} pictures a second after the first part")


if __name__ == "__main__":
    typer.run(main)
