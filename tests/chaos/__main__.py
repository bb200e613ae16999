"""`make chaos`: bad input, faults, overload and a soak against real servers, and a table of what happened."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
        return [("jpeg.py with atheris", "not installed: requirements/chaos.txt")]
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


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    mutants: int
    seed: int
    atheris_seconds: int
    pictures: int
    overload_seconds: float
    rehearsal_seconds: float
    soak_minutes: int
    container_rounds: int


Found = Iterator[tuple[str, list[tuple[str, str]]]]  # a heading, and its rows


def bad_input(sizes: Sizes) -> Found:
    with Server(Options(ports=Ports.free())) as server:
        yield "bad pictures", bad_pictures(server)
        yield "fuzzing", mutants(server, sizes.mutants, sizes.seed)
    yield "fuzzing", coverage_guided(sizes.atheris_seconds, sizes.seed)


def killed(sizes: Sizes) -> Found:
    yield "faults", kills()
    yield "delivery", delivery(sizes.pictures)


def containers(sizes: Sizes) -> Found:
    yield "containers", list(compose.rows(sizes.container_rounds))


def overloaded(sizes: Sizes) -> Found:
    server_cores, generator_cores = overload.split_cores()
    cores = f"cores {server_cores} serve, {generator_cores} sends"
    with overload.on(server_cores), Server(Options(ports=Ports.free())) as server, overload.on(generator_cores):
        yield f"overload, {cores}", overload.flood(server.grpc_url, sizes.overload_seconds).rows()
    with (
        overload.on(server_cores),
        Server(Options(ports=Ports.free())) as server,
        overload.second_server() as bulk,
        overload.on(generator_cores),
    ):
        found = overload.mixed(server.grpc_url, bulk.grpc_url, sizes.overload_seconds)
        yield f"live and bulk, {cores}", found.rows()
    with Server(Options(ports=Ports.free())) as server, overload.second_server() as bulk:
        found = overload.mixed(server.grpc_url, bulk.grpc_url, sizes.overload_seconds)
        yield "live and bulk, all on all cores", found.rows()


def rehearsed(sizes: Sizes) -> Found:
    server_cores, generator_cores = overload.split_cores()
    cores = f"cores {server_cores} serve, {generator_cores} sends"
    for engine, name in (("stand_in_slow", "slow stand-in"), ("openvino", "OpenVINO")):
        options = process.rehearsal(engine, ports=Ports.free())
        with overload.on(server_cores), Server(options) as server, overload.on(generator_cores):
            rehearsal.capacity(server, 2)  # caches, lazy loading
            title = f"rehearsal, {name}, {cores}"
            yield f"{title}: overload", rehearsal.flood(server, sizes.rehearsal_seconds)
            yield f"{title}: impatient clients", rehearsal.impatient(server, sizes.rehearsal_seconds)
            yield f"{title}: oversized requests", rehearsal.oversized(server, fuzz.ASTRONAUT.read_bytes(), 10)


def soaked(sizes: Sizes) -> Found:
    with Server(Options(ports=Ports.free())) as server:
        yield "soak", soak(server, 60, sizes.soak_minutes + 1).rows()


def rehearsal_soaked(sizes: Sizes) -> Found:
    with Server(process.rehearsal("stand_in_slow", ports=Ports.free())) as server:
        yield "soak of the rehearsal, slow stand-in", soak(server, 60, sizes.soak_minutes + 1).rows()


PARTS: dict[str, Callable[[Sizes], Found]] = {
    "bad-input": bad_input,
    "faults": killed,
    "containers": containers,
    "overload": overloaded,
    "rehearsal": rehearsed,
    "soak": soaked,
    "rehearsal-soak": rehearsal_soaked,
}


def main(
    only: Annotated[list[str] | None, typer.Option(help=f"Parts to run: {', '.join(PARTS)}.")] = None,
    mutant_count: Annotated[int, typer.Option("--mutants")] = 20_000,
    seed: int = 1,
    atheris_seconds: int = 120,
    pictures: int = 5_000,
    overload_seconds: float = 20,
    rehearsal_seconds: float = 30,
    soak_minutes: int = 10,
    container_rounds: int = 10,
) -> None:
    """Run everything, or some parts; an hour and a quarter by default."""
    if unknown := set(only or ()) - PARTS.keys():
        raise typer.BadParameter(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    ensure_onnx()
    sizes = Sizes(
        mutant_count,
        seed,
        atheris_seconds,
        pictures,
        overload_seconds,
        rehearsal_seconds,
        soak_minutes,
        container_rounds,
    )
    table = Table("", "", title="chaos", title_justify="left")
    for part in only or PARTS:
        for heading, rows in PARTS[part](sizes):
            table.add_section()
            table.add_row(f"[bold]{heading}[/]", "")
            for name, value in rows:
                table.add_row(f"  {name}", value)
                console.print(f"{heading}: {name}: {value}", highlight=False)
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
