"""The ceiling: the served decode, engine and NMS code in one process on all cores, with no server between."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from nudenet_steps.engines import engine_class
from nudenet_steps.pipeline import ENGINE_FILES, Pipeline
from nudenet_steps.preprocess import jpeg
from nudenet_steps.preprocess.canvas import CANVASES, smallest


@dataclass(frozen=True)
class Ceiling:
    """Figures of one run in one process."""

    throughput: float  # pictures a second, all cores
    core_ms: float  # CPU time a picture, ms
    single_ms: float  # median time from JPEG to detections for one picture at a time, all cores, ms


class CeilingBench:
    """Built once, measured as often as wanted: rounds alternate with the server's, since machines drift.

    `engine` is a name of `nudenet_steps.engines.ENGINES`.
    """

    def __init__(
        self,
        files: Sequence[bytes],
        precision: str,
        cores: int,
        batch: int = 8,
        engine: str = "openvino",
    ) -> None:
        cv2.setNumThreads(1)
        self._files, self._batch = list(files), batch
        build = engine_class(engine)
        needed = sorted({smallest([jpeg.read_header(data).upright_size]) for data in files}, key=CANVASES.index)
        self._workers = [Pipeline(build(ENGINE_FILES, batch, precision, 1, needed), batch) for _ in range(cores)]
        self._single = Pipeline(build(ENGINE_FILES, 1, precision, cores, needed), 1)

    def measure(self, seconds: float) -> Ceiling:
        """Run for about `seconds`, two thirds for throughput and one for single pictures."""
        counts = [0] * len(self._workers)
        begin, cpu = time.perf_counter(), time.process_time()
        end = begin + seconds * 2 / 3

        def work(index: int) -> None:
            while time.perf_counter() < end:
                first = counts[index]
                batch = [self._files[(first + i) % len(self._files)] for i in range(self._batch)]
                self._workers[index].run(batch)
                counts[index] += self._batch

        threads = [threading.Thread(target=work, args=(index,)) for index in range(len(self._workers))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        elapsed, cpu = time.perf_counter() - begin, time.process_time() - cpu
        singles: list[float] = []
        while not singles or time.perf_counter() < begin + seconds:
            start = time.perf_counter()
            self._single.run([self._files[len(singles) % len(self._files)]])
            singles.append(time.perf_counter() - start)
        return Ceiling(sum(counts) / elapsed, cpu * 1e3 / sum(counts), float(np.median(singles)) * 1e3)
