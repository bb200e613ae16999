#!/usr/bin/env python3
"""Benchmark of the cuda configuration on a host with an NVIDIA GPU: engine, decoders and the whole ensemble.

``tools/nudenet_tools/bench/gpu.sh`` runs it on a host without internet.
"""

from __future__ import annotations

import contextlib
import functools
import json
import mmap
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from container.repository import config_path, read_config
from nudenet_steps.pipeline import ENGINE_FILES
from nudenet_steps.preprocess.canvas import SPECIFIED
from nudenet_tools.bench import frames, gpu_checks, machine
from nudenet_tools.bench import report as bench_report
from nudenet_tools.bench.load import LoadBench
from nudenet_tools.server import mps, tuning
from nudenet_tools.server.process import Options, Ports, Server

BATCH = gpu_checks.BATCH
CONCURRENCY = (1, 2, 4, 8, 16, 32, 64, 128, 256)
BATCHED_CONCURRENCY = (4, 16, 32)  # requests of BATCH pictures
console = Console(highlight=False)


def _shared_memory(size: int) -> mmap.mmap:
    """Memory as that in which Triton hands over tensors."""
    path = Path("/dev/shm") / f"nudenet-gpu-bench-{os.getpid()}"
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    path.unlink()
    os.ftruncate(descriptor, size)
    memory = mmap.mmap(descriptor, size)
    os.close(descriptor)
    return memory


def measure_engine(repeats: int = 100) -> list[dict]:
    """Median time of one call by batch size, ms: with copies from and to host memory, and the bare CUDA graph replay.

    One part a picture, as requests come: in shared memory, where Triton puts them, and elsewhere.
    """
    from cuda.bindings import runtime

    from nudenet_steps.engines.onnxruntime_cuda import CudaEngine

    engine = CudaEngine(ENGINE_FILES, BATCH)
    elsewhere = np.random.default_rng(0).integers(0, 256, (BATCH, 3, *SPECIFIED), np.uint8)
    shared = np.frombuffer(_shared_memory(elsewhere.nbytes), np.uint8).reshape(elsewhere.shape)
    np.copyto(shared, elsewhere)
    rows = []
    for size in range(1, BATCH + 1):
        parts, others = [shared[i : i + 1] for i in range(size)], [elsewhere[i : i + 1] for i in range(size)]

        def replay(size: int = size) -> None:
            engine.replay(size)
            runtime.cudaDeviceSynchronize()

        calls: dict[str, Callable[[], object]] = {
            "infer_ms": functools.partial(engine.infer, parts),
            "infer_elsewhere_ms": functools.partial(engine.infer, others),
            "replay_ms": replay,
        }
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(repeats):  # in turns: clocks drift
            for name, call in calls.items():
                begin = time.perf_counter()
                call()
                times[name].append((time.perf_counter() - begin) * 1e3)
        rows.append({"batch": size} | {name: float(np.median(values)) for name, values in times.items()})
    return rows


def _decode_worker(kind: str, batch: int, seconds: float, files: list[bytes], results: multiprocessing.Queue) -> None:
    """One process that decodes in batches; puts pictures/s and CPU ms a picture."""
    from nudenet_steps.preprocess import cpu_decoder, jpeg

    if kind == "nvjpeg":
        from nudenet_steps.preprocess.gpu_decoder import GpuDecoder

        chosen: cpu_decoder.CpuDecoder | GpuDecoder = GpuDecoder(True, BATCH)
    else:
        chosen = cpu_decoder.CpuDecoder(True)

    limits = jpeg.Limits()

    def run(first: int) -> None:
        request = [files[(first + i) % len(files)] for i in range(batch)]
        _, pictures = cpu_decoder.lay_out(request, limits, chosen)
        chosen.decode([picture for picture in pictures if isinstance(picture, cpu_decoder.Picture)])

    run(0)
    run(0)  # the GPU's decoder takes files with known headers only
    count, begin, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - begin < seconds:
        run(count)
        count += batch
    results.put((count / (time.perf_counter() - begin), (time.process_time() - cpu) * 1e3 / count))


def measure_decoder(kind: str, processes: int, batch: int, files: list[bytes], seconds: float = 2.0) -> dict:
    """Pictures/s and CPU ms a picture of `processes` decoding side by side."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [
        context.Process(target=_decode_worker, args=(kind, batch, seconds, files, results), daemon=True)
        for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    figures = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    return {
        "decoder": kind,
        "processes": processes,
        "batch": batch,
        "throughput": sum(rate for rate, _ in figures),
        "core_ms": float(np.mean([cpu for _, cpu in figures])),
    }


def measure_ensemble(
    kind: str, files: list[bytes], window_s: float, levels: tuple[int, ...], shared: bool, expected: list[np.ndarray]
) -> dict:
    """The whole ensemble: answers against `expected`, then closed-loop load, also in requests of 8 pictures."""
    tuned = tuning.for_cuda(tuning.cores(), kind, shared=shared)
    options = Options(ports=Ports.free(), config_name="cuda", tuning=tuned, ready_seconds=180)
    with Server(options) as server:
        answers = gpu_checks.check_answers(server, files, expected)
        bench = LoadBench(server, files, window_s)
        report = {
            "decoder": kind,
            "mps": shared,
            "strict": read_config(config_path("nudenet_preprocess", "cuda")).parameters["strict"].string_value
            == "true",
            "engine": server.engine(),
            "instances": dict(tuned.instances),
            "seconds_to_ready": server.seconds_to_ready,
            "answers": answers,
            "loads": [bench.closed(level).as_dict() for level in levels],
            "batched_loads": [bench.closed(level, BATCH).as_dict() for level in BATCHED_CONCURRENCY],
        }
        bench.close()
        return report


def _tables(report: dict) -> None:
    table = Table(
        *("batch", "with copies, ms", "from other memory, ms", "graph replay, ms", "ratio"),
        title="Engine alone (ONNX Runtime CUDA, FP16)",
    )
    for row in report["engine"]:
        times = (row["infer_ms"], row["infer_elsewhere_ms"], row["replay_ms"])
        ratio = row["infer_ms"] / row["replay_ms"]
        table.add_row(str(row["batch"]), *(f"{value:.3f}" for value in times), f"{ratio:.2f}")
    console.print(table)
    table = Table("decoder", "processes", "batch", "pictures/s", "core-ms a picture", title="Decode, resize, normalise")
    for row in report["decode"]:
        table.add_row(
            row["decoder"] + (" with MPS" if row["mps"] else ""),
            str(row["processes"]),
            str(row["batch"]),
            f"{row['throughput']:.0f}",
            f"{row['core_ms']:.2f}",
        )
    console.print(table)
    if "decoder_differences" in report:
        console.print("GPU's decoder against the CPU's, of 255: " + json.dumps(report["decoder_differences"]))
    if "damage" in report:
        console.print("damaged files, refused by the GPU's decoder as by the CPU's: " + json.dumps(report["damage"]))
    for ensemble in report["ensemble"]:
        console.print(bench_report.gpu_ensemble_table(ensemble).rich())
        console.print("answers under load against FP32 on the CPU: " + json.dumps(ensemble["answers"]))


def gpu(
    output: Annotated[Path, typer.Option(help="Where the JSON goes.")] = Path("out/gpu_bench.json"),
    window: Annotated[float, typer.Option(help="Seconds a load level is measured.")] = 6.0,
    decoders: Annotated[str, typer.Option(help="Comma-separated: nvjpeg+mps, nvjpeg, cpu+mps, cpu.")] = (
        "nvjpeg+mps,nvjpeg,cpu"
    ),
) -> None:
    """Measure on this machine's GPU and print the tables; CUDA MPS is started for what names it, and stopped again."""
    files = frames.frames("720p")
    report: dict = {"machine": machine.describe(), "picture_bytes": [len(data) for data in files]}
    expected = gpu_checks.references(files)
    report["engine"] = measure_engine()
    report["decode"], report["ensemble"] = [], []
    if "nvjpeg" in decoders:
        report["decoder_differences"] = gpu_checks.check_decoder(files)
        report["damage"] = gpu_checks.check_damage(files)
    for name in decoders.split(","):
        kind, _, mode = name.partition("+")
        with mps.running() if mode == "mps" else contextlib.nullcontext():
            sizes = {"nvjpeg": ((1, 1), (1, 8), (3, 8)), "cpu": ((1, 8), (tuning.cores(), 8))}[kind]
            for processes, batch in sizes:
                row = measure_decoder(kind, processes, batch, files)
                report["decode"].append(row | {"mps": mode == "mps"})
            report["ensemble"].append(measure_ensemble(kind, files, window, CONCURRENCY, mode == "mps", expected))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=1) + "\n")
    _tables(report)
    console.print(f"written: {output}")
