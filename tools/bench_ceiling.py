"""The ceiling: the served decode, engine and NMS code in one process on all cores, with no server between."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import repository

import decoder  # isort: skip  (found by importing repository)
import engine  # isort: skip
import jpeg  # isort: skip
import nms  # isort: skip

EngineType = Callable[[Path, int, str, int], Any]  # as OpenVinoEngine: folder, largest batch, precision, threads
ENGINE_FILES = repository.MODEL_REPOSITORY / "nudenet_trt" / "1"
HEIGHT, WIDTH = 180, 320


@dataclass(frozen=True)
class Ceiling:
    """Figures of one run in one process."""

    throughput: float  # pictures a second, all cores
    core_ms: float  # CPU time a picture, ms
    single_ms: float  # median time from JPEG to detections for one picture at a time, all cores, ms


class Pipeline:
    """JPEG bytes to detections in this thread."""

    def __init__(
        self,
        batch: int,
        precision: str,
        threads: int,
        build: EngineType = engine.OpenVinoEngine,
        settings: nms.Settings | None = None,
    ) -> None:
        self._decoder = decoder.CpuDecoder(HEIGHT, WIDTH, strict=True)
        self._engine = build(ENGINE_FILES, batch, precision, threads)
        self._tensor = self._decoder.allocate(batch)
        self._limits, self._settings = jpeg.Limits(), settings or nms.Settings()

    def run(self, files: Sequence[bytes]) -> list[np.ndarray]:
        """Detections of up to `batch` pictures."""
        pictures = []
        for data, out in zip(files, self._tensor, strict=False):
            pictures.append(decoder.read(data, out, self._limits))
        self._decoder.decode(pictures)
        candidates = self._engine.infer([self._tensor[: len(files)]])
        return [
            nms.detect(rows, np.array(picture.box.geometry, np.float32), self._settings)
            for rows, picture in zip(candidates, pictures, strict=True)
        ]


class CeilingBench:
    """Built once, measured as often as wanted: rounds alternate with the server's, since machines drift."""

    def __init__(
        self,
        files: Sequence[bytes],
        precision: str,
        cores: int,
        batch: int = 8,
        build: EngineType = engine.OpenVinoEngine,
    ) -> None:
        cv2.setNumThreads(1)
        self._files, self._batch = list(files), batch
        self._workers = [Pipeline(batch, precision, 1, build) for _ in range(cores)]
        self._single = Pipeline(1, precision, cores, build)

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
