"""Pictures of one aspect, and of several at a time: throughput, and how full the detector's batches are by canvas."""

from __future__ import annotations

import random
import time
from types import TracebackType

from nudenet_client import Client
from nudenet_steps.preprocess.canvas import smallest
from nudenet_steps.serving.metrics import BATCH_PICTURES, BATCHES, FLUSH_SECONDS
from nudenet_tools.bench import frames
from nudenet_tools.bench.load import LoadBench
from nudenet_tools.bench.promises import MIX, MIXED
from nudenet_tools.server.process import LOOPBACK, Server
from nudenet_tools.server.status import read_metrics

MIX_LENGTH = 40  # pictures, in a seeded order, that repeat
IN_FLIGHT = 24
PROBES = 12  # requests at a time, so that each detector gets one


class AspectsBench:
    """A context manager around a load generator for each aspect and one for the mix."""

    def __init__(self, server: Server, window_s: float) -> None:
        self._server = server
        files = {aspect: frames.frames(aspect) for aspect in frames.ASPECTS}
        self._probe = files["16:9"][0]
        mixed = [
            files[aspect][i % len(files[aspect])]
            for aspect, share in MIX.items()
            for i in range(round(share * MIX_LENGTH))
        ]
        random.Random(0).shuffle(mixed)
        self._loads = {
            name: LoadBench(server, pictures, window_s) for name, pictures in {**files, MIXED: mixed}.items()
        }

    def __enter__(self) -> AspectsBench:
        for load in self._loads.values():  # what compiles when it first comes does so now
            load.closed(IN_FLIGHT, window_s=1.5)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for load in self._loads.values():
            load.close()

    def measure(self) -> dict[str, dict]:
        """One load for each; by name, with ``canvas_batch``: pictures a batch of the detector by canvas."""
        found, before = {}, self._counters()
        for name, load in self._loads.items():
            result = load.closed(IN_FLIGHT).as_dict()
            after = self._counters()
            recent, before = {key: value - before.get(key, 0) for key, value in after.items()}, after
            result["canvas_batch"] = {
                canvas: recent[BATCH_PICTURES, canvas] / recent[BATCHES, canvas]
                for canvas in sorted({_canvas(aspect) for aspect in (MIX if name == MIXED else (name,))})
                if recent.get((BATCHES, canvas))
            }
            found[name] = result
        return found

    def _counters(self) -> dict[tuple[str, str], float]:
        """By metric and canvas. A detector hands over what it has counted with its first request after a second."""
        time.sleep(FLUSH_SECONDS)
        with Client(self._server.grpc_url, concurrency=PROBES) as client:
            list(client.detect_many([self._probe] * PROBES, batch_size=1))
        metrics = read_metrics(f"{LOOPBACK}:{self._server.ports.metrics}")
        return {
            (name, labels["canvas"]): value for name in (BATCHES, BATCH_PICTURES) for labels, value in metrics[name]
        }


def _canvas(aspect: str) -> str:
    """As the detector's counters name it."""
    canvas = smallest([frames.ASPECTS[aspect]])
    return f"{canvas.height}x{canvas.width}"
