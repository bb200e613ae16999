"""The order in which things are measured. Machines drift: what is compared stands side by side in every round."""

from __future__ import annotations

import contextlib
import shutil
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from container.repository import MODEL_REPOSITORY, Tuning
from nudenet_tools.bench import frames, int8, machine, perf_analyzer
from nudenet_tools.bench.aspects import AspectsBench
from nudenet_tools.bench.ceiling import CeilingBench
from nudenet_tools.bench.load import Load, LoadBench, memory_mb
from nudenet_tools.bench.peers import PeersBench
from nudenet_tools.server import tuning
from nudenet_tools.server.process import Options, Ports, Server


class Part(StrEnum):
    """What can be measured alone."""

    ensemble = "ensemble"  # with the in-process ceiling beside it
    open = "open"
    peers = "peers"
    int8 = "int8"
    growth = "growth"
    aspects = "aspects"


@dataclass(frozen=True)
class Settings:
    """How long and how much; seconds are of measuring, starts come on top."""

    rounds: int = 5
    levels: tuple[int, ...] = (1, 2, 4, 8, 16, 24, 32)
    batched: tuple[int, int] = (3, 8)  # requests in flight of so many pictures, beside the levels
    ceiling_s: float = 2.4
    window_s: float = 3.0  # a load level
    peer_s: float = 2.5
    peer_concurrency: int = 8  # requests in flight at the peers, at the INT8 engine, and at the ensemble beside them
    streams: int = 8
    fps: int = 30
    open_s: float = 30.0
    sizes: tuple[str, ...] = ("360p", "720p", "1080p", "4K")
    batches: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)
    instances: tuple[int, ...] = (1, 2, 3, 4)
    aspect_s: float = 3.0
    growth_s: float = 2.4
    growth_concurrency: int = 8  # of batch 1; larger batches have fewer requests in flight, 8 pictures at least


QUICK = Settings(1, (1, 8), (3, 8), 0.6, 1.5, 0.5, 2, 8, 30, 1.5, ("360p",), (8,), (1,), 1.5, 1.5)


class Bench:
    """One run on one machine.

    Args:
        settings: how much.
        parts: what.
        say: called with a line before each thing that is measured.
    """

    def __init__(self, settings: Settings, parts: Sequence[Part], say: Callable[[str], None]) -> None:
        self._settings, self._parts, self._say = settings, set(parts), say
        self._cores = tuning.cores()
        self._files = frames.frames("720p")

    def run(self) -> dict:
        """Measure.

        Returns:
            the report, as JSON holds it; parts that were not asked for are missing.

        Raises:
            ServerError, PeerError, Int8Error, PerfAnalyzerError: something cannot run.
        """
        report: dict = {
            "machine": machine.describe(),
            "settings": asdict(self._settings) | {"parts": sorted(part.value for part in self._parts)},
            "picture_bytes": [len(data) for data in self._files],
        }
        with self._serve(tuning.for_cpu(self._cores)) as server:
            report["engine"], report["seconds_to_ready"] = server.engine(), server.seconds_to_ready
            if self._parts & {Part.ensemble, Part.peers, Part.int8, Part.aspects}:
                report |= self._rounds(server)
            if Part.open in self._parts:
                report["open_loop"] = self._open(server)
            if Part.growth in self._parts:
                report["sizes"], report["batches"] = self._sizes(server), self._batches(server)
        if Part.growth in self._parts:
            report["instances"] = self._instances()
        return report

    def _serve(self, tuned: Tuning, models: Path = MODEL_REPOSITORY) -> Server:
        return Server(Options(ports=Ports.free(), tuning=tuned, model_repository=models))

    def _load(self, stack: contextlib.ExitStack, server: Server, seconds: float, files=None) -> LoadBench:
        bench = LoadBench(server, files or self._files, seconds)
        stack.callback(bench.close)
        return bench

    def _rounds(self, server: Server) -> dict:
        settings, found, rounds = self._settings, {}, []
        with contextlib.ExitStack() as stack:
            load = self._load(stack, server, settings.window_s)
            if Part.ensemble in self._parts:
                self._say("building the in-process ceiling")
                ceiling = CeilingBench(self._files, "auto", self._cores)
                ceiling.measure(0.5)
            if Part.peers in self._parts:
                self._say("starting the peers")
                decoders = tuning.for_cpu(self._cores).instances["nudenet_preprocess"]
                peers = PeersBench(server, self._files, settings.peer_concurrency, decoders)
                stack.enter_context(peers)
            if Part.int8 in self._parts:
                self._say("starting a server on the INT8 engine")
                scratch = Path(tempfile.mkdtemp(prefix="nudenet-bench-"))
                stack.callback(shutil.rmtree, scratch, ignore_errors=True)
                models, found["int8_calibration"] = int8.prepare(scratch, self._files)
                int8_server = stack.enter_context(self._serve(tuning.for_cpu(self._cores, "INT8"), models))
                int8_load = self._load(stack, int8_server, settings.window_s)
                int8_load.closed(settings.peer_concurrency)
            if Part.aspects in self._parts:
                self._say("compiling for every aspect")
                aspects = stack.enter_context(AspectsBench(server, settings.aspect_s))
            self._say("warming up")
            load.closed(settings.levels[-1])
            for number in range(1, settings.rounds + 1):
                row: dict = {}
                name = f"round {number} of {settings.rounds}"
                if Part.ensemble in self._parts:
                    # The ceiling before and after: their mean is the machine's speed while the ensemble ran.
                    self._say(f"{name}: in-process ceiling, ensemble with {settings.levels} in flight")
                    row["ceiling"] = [asdict(ceiling.measure(settings.ceiling_s))]
                    loads = [load.closed(level) for level in settings.levels]
                    row["batched"] = {"batch": settings.batched[1], **load.closed(*settings.batched).as_dict()}
                    row["ceiling"].append(asdict(ceiling.measure(settings.ceiling_s)))
                    row["ensemble"] = [level.as_dict() for level in loads]
                if Part.int8 in self._parts:
                    self._say(f"{name}: INT8 beside {server.engine()}")
                    row["int8"] = int8_load.closed(settings.peer_concurrency).as_dict()
                if self._parts & {Part.int8, Part.peers}:
                    row["reference"] = load.closed(settings.peer_concurrency).as_dict()
                if Part.peers in self._parts:
                    self._say(f"{name}: peers")
                    row["peers"] = {key: peer.as_dict() for key, peer in peers.measure(settings.peer_s).items()}
                if Part.aspects in self._parts:
                    self._say(f"{name}: aspects, and several at a time")
                    row["aspects"] = aspects.measure()
                rounds.append(row)
        return {**found, "rounds": rounds}

    def _open(self, server: Server) -> dict:
        settings = self._settings
        rate = settings.streams * settings.fps
        self._say(f"open loop: {settings.streams} streams x {settings.fps} = {rate} requests/s, {settings.open_s:g} s")
        with contextlib.ExitStack() as stack:
            self._load(stack, server, 1.0).closed(4)
            try:
                found = self._load(stack, server, settings.open_s).open(rate).as_dict()
            except perf_analyzer.PerfAnalyzerError as error:  # refused requests end it: a result, not an accident
                found = {"level": rate, "error": str(error)}
        return found | {"seconds": settings.open_s}

    def _sizes(self, server: Server) -> list[dict]:
        rows = []
        for size in self._settings.sizes:
            files = frames.frames(size)
            self._say(f"pictures of {size}")
            with contextlib.ExitStack() as stack:
                load = self._load(stack, server, self._settings.growth_s, files)
                found = load.closed(self._settings.growth_concurrency)
            rows.append({"size": size, "picture_bytes": statistics.fmean(map(len, files)), **found.as_dict()})
        return rows

    def _batches(self, server: Server) -> list[dict]:
        rows = []
        with contextlib.ExitStack() as stack:
            load = self._load(stack, server, self._settings.growth_s)
            for batch in self._settings.batches:
                requests = max(1, -(-self._settings.growth_concurrency // batch))
                self._say(f"requests of {batch}, {requests} in flight")
                rows.append({"batch": batch, **load.closed(requests, batch).as_dict()})
        return rows

    def _instances(self) -> list[dict]:
        """Detector instances that share the cores, and their memory; decoders as tuned."""
        rows = []
        for count in self._settings.instances:
            tuned = tuning.for_cpu(self._cores)
            as_served = count == tuned.instances["nudenet_trt"]
            threads = self._cores if as_served else max(1, self._cores // count)
            self._say(f"detector instances: {count}, threads of each: {threads}")
            tuned = Tuning(
                {**tuned.instances, "nudenet_trt": count},
                {**tuned.parameters, "nudenet_trt": {**tuned.parameters["nudenet_trt"], "threads": str(threads)}},
            )
            with self._serve(tuned) as server, contextlib.ExitStack() as stack:
                load = self._load(stack, server, self._settings.growth_s)
                load.closed(4)
                found: Load = load.closed(self._settings.growth_concurrency)
                rows.append({"instances": count, "threads": threads, "memory_mb": memory_mb(server), **found.as_dict()})
        return rows
