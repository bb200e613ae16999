#!/usr/bin/env python3
"""Benchmark of the cuda configuration on a host with an NVIDIA GPU: engine, decoders and the whole ensemble.

``tools/gpu_bench.sh`` runs it on a host without internet.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from pathlib import Path
from typing import Annotated

import bench_machine
import bench_pictures
import numpy as np
import repository
import tuning
import typer
from bench_load import LoadBench
from rich.console import Console
from rich.table import Table
from server import Options, Ports, Server

HEIGHT, WIDTH, BATCH = 180, 320, 8
CONCURRENCY = (1, 2, 4, 8, 16, 32, 64, 128, 256)
console = Console(highlight=False)


def measure_engine(repeats: int = 100) -> list[dict]:
    """Time of one call by batch size: with copies from and to host memory, and of the bare CUDA graph replay; ms."""
    from cuda.bindings import runtime
    from cuda_engine import CudaEngine

    engine = CudaEngine(repository.MODEL_REPOSITORY / "nudenet_trt" / "1", BATCH)
    pictures = np.random.default_rng(0).random((BATCH, 3, HEIGHT, WIDTH), dtype=np.float32)
    rows = []
    for size in range(1, BATCH + 1):
        infer, replay = [], []
        for _ in range(repeats):
            begin = time.perf_counter()
            engine.infer([pictures[:size]])
            middle = time.perf_counter()
            engine.replay(size)
            runtime.cudaDeviceSynchronize()
            infer.append(middle - begin)
            replay.append(time.perf_counter() - middle)
        rows.append({"batch": size, "infer_ms": np.median(infer) * 1e3, "replay_ms": np.median(replay) * 1e3})
    return rows


def _decode_worker(kind: str, batch: int, seconds: float, files: list[bytes], results: multiprocessing.Queue) -> None:
    """One process that decodes in batches; puts pictures/s and CPU ms a picture."""
    import decoder
    import jpeg

    if kind == "nvjpeg":
        from nvjpeg import GpuDecoder

        chosen: decoder.CpuDecoder | GpuDecoder = GpuDecoder(HEIGHT, WIDTH, False, BATCH)
    else:
        chosen = decoder.CpuDecoder(HEIGHT, WIDTH, True)

    limits = jpeg.Limits()

    def run(first: int) -> None:
        tensor = chosen.allocate(batch)
        pictures = []
        for i in range(batch):
            pictures.append(decoder.read(files[(first + i) % len(files)], tensor[i], limits))
        chosen.decode(pictures)

    run(0)
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


def measure_ensemble(kind: str, files: list[bytes], window_s: float, levels: tuple[int, ...]) -> dict:
    """The whole ensemble under closed-loop load."""
    options = Options(
        ports=Ports.free(), config_name="cuda", tuning=tuning.for_cuda(tuning.cores(), kind), ready_seconds=180
    )
    with Server(options) as server:
        bench = LoadBench(server, files, window_s)
        loads = [bench.closed(level).as_dict() for level in levels]
        bench.close()
        return {"decoder": kind, "engine": server.engine(), "seconds_to_ready": server.seconds_to_ready, "loads": loads}


def _tables(report: dict) -> None:
    table = Table(
        "batch", "with copies, ms", "graph replay, ms", "ratio", title="Engine alone (ONNX Runtime CUDA, FP16)"
    )
    for row in report["engine"]:
        ratio = row["infer_ms"] / row["replay_ms"]
        table.add_row(str(row["batch"]), f"{row['infer_ms']:.3f}", f"{row['replay_ms']:.3f}", f"{ratio:.2f}")
    console.print(table)
    table = Table("decoder", "processes", "batch", "pictures/s", "core-ms a picture", title="Decode, resize, normalise")
    for row in report["decode"]:
        table.add_row(
            row["decoder"],
            str(row["processes"]),
            str(row["batch"]),
            f"{row['throughput']:.0f}",
            f"{row['core_ms']:.2f}",
        )
    console.print(table)
    for ensemble in report["ensemble"]:
        title = f"Ensemble from 720p JPEG, decoder {ensemble['decoder']}, {ensemble['engine']}"
        table = Table("concurrency", "pictures/s", "p50 ms", "p95 ms", "p99 ms", "core-ms", "failed", title=title)
        for load in ensemble["loads"]:
            table.add_row(
                f"{load['level']:.0f}",
                f"{load['throughput']:.0f}",
                *(f"{load[key]:.2f}" for key in ("p50", "p95", "p99")),
                f"{sum(load['core_ms'].values()):.2f}",
                str(load["failures"]),
            )
        console.print(table)


def main(
    output: Annotated[Path, typer.Option(help="Where the JSON goes.")] = Path("out/gpu_bench.json"),
    window: Annotated[float, typer.Option(help="Seconds a load level is measured.")] = 6.0,
    decoders: Annotated[str, typer.Option(help="Comma-separated: nvjpeg, cpu.")] = "nvjpeg,cpu",
) -> None:
    """Measure on this machine's GPU and print the tables."""
    files = bench_pictures.frames("720p")
    report: dict = {"machine": bench_machine.describe(), "picture_bytes": [len(data) for data in files]}
    report["engine"] = measure_engine()
    kinds = decoders.split(",")
    report["decode"] = [
        measure_decoder(kind, processes, batch, files)
        for kind in kinds
        for processes, batch in ({"nvjpeg": ((1, 1), (1, 8), (3, 8)), "cpu": ((1, 8), (tuning.cores(), 8))}[kind])
    ]
    report["ensemble"] = [measure_ensemble(kind, files, window, CONCURRENCY) for kind in kinds]
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=1) + "\n")
    _tables(report)
    console.print(f"written: {output}")


if __name__ == "__main__":
    typer.run(main)
