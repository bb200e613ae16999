"""Overload, impatient clients and oversized requests on the production configuration, with a stand-in for the plan."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import psutil
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException

from chaos.overload import LIVE, SATURATING, Stream, load
from nudenet_client.request import queue_timeout_us
from nudenet_tools.server.process import Server
from nudenet_tools.server.status import read_metrics

FACTORS = (1.3, 4)
DEADLINES = (0.4, 1.0, 2.0)
IMPATIENT_FACTOR = 2  # of the capacity is sent by clients with deadlines
IN_FLIGHT = 2 * SATURATING  # the production configuration needs more for full batches
PARAMETER_BYTES = 20_000_000
CANDIDATES = 60_000


@dataclass(frozen=True)
class Memory:
    """Bytes that tritonserver itself holds."""

    before: int
    most: int


@contextlib.contextmanager
def memory(server: Server) -> Iterator[Callable[[], Memory]]:
    """Watches tritonserver's resident memory; the result is there after the block."""
    assert server.process is not None
    process, stop = psutil.Process(server.process.pid), threading.Event()
    samples = [process.memory_info().rss]

    def watch() -> None:
        while not stop.wait(0.2):
            samples.append(process.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: Memory(samples[0], max(samples))
    finally:
        stop.set()
        thread.join()


def pending(server: Server) -> dict[str, float]:
    """Requests that wait in each step's queue."""
    rows = read_metrics(f"127.0.0.1:{server.ports.metrics}")["nv_inference_pending_request_count"]
    return {labels["model"]: value for labels, value in rows}


def longest(stream: Stream) -> float:
    """Seconds of the slowest good answer."""
    return float(stream.latency[stream.served].max(initial=0))


def capacity(server: Server, seconds: float) -> Stream:
    """In a closed loop, once what a load before left in the queues is gone."""
    time.sleep(2)
    return load(server.grpc_url, seconds, in_flight=IN_FLIGHT)


def flood(server: Server, seconds: float) -> list[tuple[str, str]]:
    """1.3 and 4 times the capacity, each in turn with a measurement of the capacity."""
    rows = []
    for factor in FACTORS:
        calm = capacity(server, seconds / 3)
        with memory(server) as seen:
            stream = load(server.grpc_url, seconds, rate=factor * calm.served_rate, priority=LIVE)
        used = seen()
        rows.append(
            (
                f"{factor:g}x the capacity of {calm.served_rate:.0f}/s",
                f"served {stream.served_rate / calm.served_rate:.0%} of it, longest answer {longest(stream):.2f} s, "
                f"tritonserver {used.before / 1e6:.0f} MB before, {used.most / 1e6:.0f} at most, "
                f"other errors {sum(stream.errors.values())}",
            )
        )
    return rows


def impatient(server: Server, seconds: float, deadlines: Sequence[float] = DEADLINES) -> list[tuple[str, str]]:
    """Twice the capacity from clients with deadlines, with and without the time-out that our clients send."""
    rows = []
    for deadline in deadlines:
        calm = capacity(server, seconds / 3)
        said = []
        for timeout_us, how in ((queue_timeout_us(deadline), "a third of it as time-out"), (0, "no time-out")):
            options = {"rate": IMPATIENT_FACTOR * calm.served_rate, "patience": f"{deadline},{deadline}"}
            stream = load(server.grpc_url, seconds, priority=LIVE, timeout_us=timeout_us, **options)
            said.append(f"{stream.served_rate / calm.served_rate:.0%} with {how}")
        rows.append((f"deadline {deadline:g} s, in time of {calm.served_rate:.0f}/s", ", ".join(said)))
    return rows


def _picture(client: grpc.InferenceServerClient, data: bytes, **options) -> None:
    image = grpc.InferInput("image", [1, 1], "BYTES")
    image.set_data_from_numpy(np.array([[data]], np.object_))
    client.infer("nudenet", [image], client_timeout=60, **options)


def _candidates(client: grpc.InferenceServerClient) -> None:
    inputs = []
    for name, shape in (("candidates", [1, CANDIDATES, 6]), ("geometry", [1, 4])):
        inputs.append(grpc.InferInput(name, shape, "FP32"))
        inputs[-1].set_data_from_numpy(np.ones(shape, np.float32))
    client.infer("nudenet_postprocess", inputs, client_timeout=60)


def oversized(server: Server, picture: bytes, seconds: float) -> list[tuple[str, str]]:
    """A quiet client alone, and beside another that sends oversized requests all the time."""
    text = "x" * PARAMETER_BYTES
    attacks: dict[str, Callable[[grpc.InferenceServerClient], None] | None] = {
        "alone (control)": None,
        f"beside {PARAMETER_BYTES / 1e6:.0f} MB of parameters": lambda c: _picture(
            c, picture, parameters={"classes": text}
        ),
        f"beside {CANDIDATES} candidates": _candidates,
    }
    rows = []
    for name, attack in attacks.items():
        stop, sent, said = threading.Event(), itertools.count(), set()

        def attacker(attack=attack, stop=stop, sent=sent, said=said) -> None:
            with grpc.InferenceServerClient(server.grpc_url) as client:
                while not stop.is_set():
                    next(sent)
                    try:
                        attack(client)
                        said.add("answered")
                    except InferenceServerException as error:
                        said.add(error.message()[:100])

        thread = threading.Thread(target=attacker)
        if attack:
            thread.start()
            time.sleep(0.2)
        quiet = load(server.grpc_url, seconds, rate=10, priority=LIVE)
        stop.set()
        if attack:
            thread.join()
        result = f"{quiet.served.mean():.0%} answered, longest {longest(quiet):.3f} s, p50 {quiet.percentile(50):.3f} s"
        rows.append((f"quiet client {name}", result + (f"; {next(sent)} sent: {'; '.join(said)}" if attack else "")))
    return rows
