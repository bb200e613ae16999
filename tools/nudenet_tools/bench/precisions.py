"""Time the CPU engine of nudenet_trt in each precision: milliseconds a picture, one thread, batch 8 and 1."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from nudenet_steps.engines import EngineError
from nudenet_steps.engines.cpu_precision import INT8_GRAPH
from nudenet_steps.engines.openvino import OpenVinoEngine, has_bf16
from nudenet_steps.pipeline import ENGINE_FILES
from nudenet_steps.preprocess.canvas import SPECIFIED
from nudenet_tools.server.precision_times import time_precisions

BATCHES = (8, 1)


def precisions(
    folder: Annotated[Path, typer.Option(help="Holds model.dynamic.onnx and model.int8.onnx.")] = ENGINE_FILES,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the engine.")] = 1,
    rounds: Annotated[int, typer.Option(min=3, help="Rounds to take the median of.")] = 40,
) -> None:
    """Print milliseconds a picture for FP32, BF16 and INT8 on OpenVINO, and the speed relative to the first."""
    names = ["FP32", *(["BF16"] if has_bf16() else [])]
    if (folder / INT8_GRAPH).is_file():
        names.append("INT8")
    else:
        typer.echo(f"no {INT8_GRAPH}: python build/precision.py --precision INT8 makes it", err=True)
    try:
        engines = {name: OpenVinoEngine(folder, max(BATCHES), name, threads, (SPECIFIED,)) for name in names}
    except EngineError as error:
        typer.echo(f"bench: {error}", err=True)
        raise typer.Exit(2) from error
    pictures = np.random.default_rng(0).integers(0, 256, (max(BATCHES), 3, *SPECIFIED), np.uint8)
    table = Table("precision", "batch", "median ms", "best ms", "speed against FP32", title=f"{threads} thread(s)")
    for batch in BATCHES:
        times = time_precisions(engines, pictures[:batch], rounds)
        base = np.median(times["FP32"])
        for name, values in times.items():
            middle = np.median(values)
            table.add_row(name, str(batch), f"{middle:.2f}", f"{values.min():.2f}", f"{base / middle:.2f}x")
    Console().print(table)
