"""`make chaos`: bad input, faults, overload and a soak against real servers, and a table of what happened."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from chaos import compose, faults, fuzz, overload, rehearsal
from chaos.soak import soak
from helpers import hostile
from nudenet_client import Client, PictureError
from nudenet_tools import ROOT
from nudenet_tools.server import process
from nudenet_tools.server.prepare import ensure_onnx
from nudenet_tools.server.process import Options, Ports, Server

console = Console()


def bad_pictures(server: Server) -> list[tuple[str, str]]:
    good = fuzz.ASTRONAUT.read_bytes()
    bad = hostile.bad_pictures(good)
    refused = neighbours = 0
    with Client(server.grpc_url) as client:
        for data, _, message in bad.values():
            try:
                client.detect(data)
            except PictureError as error:
                refused += message in error.reason
            neighbours += len(client.detect(good)) == 1
    return [("kinds tried", f"{len(bad)}, refused with their reason {refused}, next picture right {neighbours}")]


def mutants(server: Server, count: int, seed: int) -> list[tuple[str, str]]:
    assert server.process is not None
    outcome = fuzz.fuzz(server.grpc_url, server.process.pid, count, seed)
    for line in outcome.wrong[:10]:
        console.print(f"[red]{line}[/]")
    return [
        ("mutants tried", f"{outcome.tried} in {outcome.seconds:.0f} s, {outcome.refused} refused"),
        ("wrong, lost or late", str(len(outcome.wrong))),
        ("slowest answer", f"{outcome.slowest_s:.2f} s with {fuzz.IN_FLIGHT} in flight"),
        ("memory growth", f"{outcome.memory_growth / 1e6:+.1f} MB"),
        ("server ended", "no" if server.process.poll() is None else "YES"),
    ]


def coverage_guided(seconds: int, seed: int) -> list[tuple[str, str]]:
    if importlib.util.find_spec("atheris") is None:
        return [("jpeg.py with atheris", "not installed: needs Python 3.11 or later and requirements/chaos.txt")]
    script = Path(__file__).with_name("fuzz_jpeg.py")
    (ROOT / "out").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as corpus:
        options = [f"-max_total_time={seconds}", f"-seed={seed}", f"-artifact_prefix={ROOT}/out/finding-"]
        command = [sys.executable, str(script), *options, corpus]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    last = (result.stderr.strip() or "no output").splitlines()[-1]
    if result.returncode == 0:
        return [("jpeg.py with atheris", f"{last}; findings: none")]
    what = result.stdout.partition("=== Uncaught Python exception: ===")[2] or result.stderr
    return [("jpeg.py with atheris", f"FOUND, the input is out/finding-*: {what.strip()[:600]}")]


def kills() -> list[tuple[str, str]]:
    recoveries, rows, before = [], [], faults.server_processes()
    with faults.supervised() as (supervisor, events):
        for what, number in faults.FAULTS:
            recoveries.append(faults.inflict(supervisor, events, what, number))
            rows.append((f"{what}, {number.name}", f"good answers again after {recoveries[-1].seconds:.1f} s"))
    return [*rows, ("left in /dev/shm or as processes", ", ".join(faults.left_behind(recoveries, before)) or "nothing")]


def delivery(count: int) -> list[tuple[str, str]]:
    seen = faults.deliver(count, kills=3)
    return [
        ("pictures sent with retries", f"{seen.sent} in {seen.seconds:.0f} s, {seen.kills} kills meanwhile"),
        ("lost or doubled / wrong", f"{seen.sent - seen.answered} / {seen.wrong}"),
    ]


def main(
    mutant_count: Annotated[int, typer.Option("--mutants")] = 20_000,
    seed: int = 1,
    atheris_seconds: int = 120,
    pictures: int = 5_000,
    overload_seconds: float = 20,
    rehearsal_seconds: float = 30,
    soak_minutes: int = 10,
    container_rounds: int = 10,
) -> None:
    """Run everything; about an hour by default."""
    ensure_onnx()
    table = Table("", "", title="chaos", title_justify="left")

    def add(section: str, rows: list[tuple[str, str]]) -> None:
        table.add_section()
        table.add_row(f"[bold]{section}[/]", "")
        for name, value in rows:
            table.add_row(f"  {name}", value)
            console.print(f"{section}: {name}: {value}", highlight=False)

    with Server(Options(ports=Ports.free())) as server:
        add("bad pictures", bad_pictures(server))
        add("fuzzing", mutants(server, mutant_count, seed))
    add("fuzzing", coverage_guided(atheris_seconds, seed))
    add("faults", kills())
    add("containers", list(compose.rows(container_rounds)))
    add("delivery", delivery(pictures))
    server_cores, generator_cores = overload.split_cores()
    with overload.on(server_cores), Server(Options(ports=Ports.free())) as server, overload.on(generator_cores):
        title = f"overload, cores {server_cores} serve, {generator_cores} sends"
        add(title, overload.flood(server.grpc_url, overload_seconds).rows())
    with (
        overload.on(server_cores),
        Server(Options(ports=Ports.free())) as server,
        overload.second_server() as bulk,
        overload.on(generator_cores),
    ):
        title = f"live and bulk, cores {server_cores} serve, {generator_cores} sends"
        add(title, overload.mixed(server.grpc_url, bulk.grpc_url, overload_seconds).rows())
    with Server(Options(ports=Ports.free())) as server, overload.second_server() as bulk:
        add("live and bulk, all on all cores", overload.mixed(server.grpc_url, bulk.grpc_url, overload_seconds).rows())
    for engine, title in (("stand_in_slow", "rehearsal, slow stand-in"), ("openvino", "rehearsal, OpenVINO")):
        with Server(process.rehearsal(engine, ports=Ports.free())) as server:
            rehearsal.capacity(server, 2)  # caches, lazy loading
            add(f"{title}: overload", rehearsal.flood(server, rehearsal_seconds))
            add(f"{title}: impatient clients", rehearsal.impatient(server, rehearsal_seconds))
            add(f"{title}: oversized requests", rehearsal.oversized(server, fuzz.ASTRONAUT.read_bytes(), 10))
    with Server(Options(ports=Ports.free())) as server:
        add("soak", soak(server, 60, soak_minutes + 1).rows())
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
