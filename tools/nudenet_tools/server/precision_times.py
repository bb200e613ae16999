"""Time the precisions among which `auto` chooses on the CPU, and keep the times beside the INT8 graph."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from nudenet_steps.engines import Engine, cpu_precision
from nudenet_steps.engines.openvino import OpenVinoEngine, has_bf16
from nudenet_steps.preprocess.canvas import SPECIFIED

BATCH = 8
ROUNDS = 9


def time_precisions(engines: Mapping[str, Engine], batch: np.ndarray, rounds: int) -> dict[str, np.ndarray]:
    """Milliseconds a picture in each round, by precision.

    Precisions take turns in short rounds, so that a disturbance from outside meets all of them.

    Args:
        engines: by precision.
        batch: UINT8 [n,3,H,W].
        rounds: how many rounds; each is the best of three calls.
    """
    times: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds):
        for name, served in engines.items():
            served.infer([batch])
            calls = []
            for _ in range(3):
                start = time.perf_counter()
                served.infer([batch])
                calls.append(time.perf_counter() - start)
            times[name].append(1000 * min(calls) / len(batch))
    return {name: np.array(values) for name, values in times.items()}


def ensure(folder: Path, threads: int, say: Callable[[str], None], *, again: bool = False) -> cpu_precision.Choice:
    """Measure if `auto` has a choice here and nothing is known of it: about five seconds, once for a CPU and a graph.

    Args:
        folder: the detector's version folder.
        threads: to measure with; what is measured decides for engines of any number.
        say: told before a measurement.
        again: measure what is known, too.

    Returns:
        what `auto` is from now on.
    """
    bf16 = has_bf16()
    if not cpu_precision.int8_fault(folder) and cpu_precision.can_keep_times(folder):
        graph = folder / cpu_precision.INT8_GRAPH
        key = cpu_precision.times_key(graph)
        if again or cpu_precision.read_times(graph, key) is None:
            say("measuring which precision is faster on this CPU ...")
            names = ("INT8", "BF16" if bf16 else "FP32")
            engines = {name: OpenVinoEngine(folder, BATCH, name, threads, (SPECIFIED,)) for name in names}
            pixels = np.random.default_rng(0).integers(0, 256, (BATCH, 3, *SPECIFIED), np.uint8)
            times = time_precisions(engines, pixels, ROUNDS)
            cpu_precision.write_times(graph, key, {name: float(np.median(values)) for name, values in times.items()})
    return cpu_precision.choose(folder, bf16)
