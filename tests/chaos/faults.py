"""Kill or stop each process of a supervised server and wait until it answers again."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import signal
import threading
import time
from collections.abc import Iterator

import numpy as np
import psutil

from chaos.fuzz import neighbours
from container.healthcheck import Canary, CanaryError
from container.supervisor import Supervisor, Watch
from nudenet_client import Client
from nudenet_tools.server.process import SHM, Options, Ports, Server

# what, signal: SIGSTOP is a hang, only the canary sees it
FAULTS = [
    ("nudenet_preprocess", signal.SIGKILL),
    ("nudenet_trt", signal.SIGKILL),
    ("nudenet_postprocess", signal.SIGKILL),
    ("tritonserver", signal.SIGKILL),
    ("nudenet_preprocess", signal.SIGSEGV),
    ("nudenet_trt", signal.SIGSEGV),
    ("tritonserver", signal.SIGSEGV),
    ("nudenet_preprocess", signal.SIGSTOP),  # one of several
    ("nudenet_trt", signal.SIGSTOP),
    ("tritonserver", signal.SIGSTOP),
]
AT_ONCE = Watch(healthy_after=0)  # every fault here is a new one: no back-off


@dataclasses.dataclass(frozen=True)
class Recovery:
    """One fault and how it ended."""

    what: str
    signal: signal.Signals
    seconds: float  # from the signal to the first good answer
    events: list[str]  # what the supervisor said
    region_prefix: str  # of the shared memory that the failed server had


@contextlib.contextmanager
def supervised(watch: Watch = AT_ONCE, options: Options | None = None) -> Iterator[tuple[Supervisor, queue.Queue]]:
    """A server under supervision, ready; and the queue of what the supervisor says."""
    events: queue.Queue = queue.Queue()
    stopped, ready = threading.Event(), threading.Event()
    supervisor = Supervisor(Server(options or Options(ports=Ports.free())), events.put, watch)
    thread = threading.Thread(target=supervisor.run, args=(stopped, lambda server: ready.set()))
    thread.start()
    try:
        assert ready.wait(60), "the server did not start"
        yield supervisor, events
    finally:
        stopped.set()
        thread.join(60)


def process_ids(server: Server, what: str) -> list[int]:
    assert server.process is not None
    return [server.process.pid] if what == "tritonserver" else server.stub_pids(what)


def wait_for_answer(url: str, timeout: float = 90.0) -> float:
    """Seconds until the canary picture is answered five times in a row (a dead instance fails every other time)."""
    begin, good = time.monotonic(), 0
    with Canary(url) as canary:
        while time.monotonic() - begin < timeout:
            try:
                canary.ask(2)
                good += 1
            except CanaryError:
                good = 0
            if good == 5:
                return time.monotonic() - begin
            time.sleep(0.05)
    raise TimeoutError(f"no answer from {url} within {timeout:.0f} s")


def inflict(supervisor: Supervisor, events: queue.Queue, what: str, number: signal.Signals) -> Recovery:
    """One fault, waited out."""
    before, prefix, begin = supervisor.restarts, supervisor.server.region_prefix, time.monotonic()
    os.kill(process_ids(supervisor.server, what)[0], number)
    while supervisor.restarts == before:
        if time.monotonic() - begin > 120:
            raise TimeoutError(f"{what} was not replaced")
        time.sleep(0.02)
    wait_for_answer(supervisor.server.grpc_url)
    seconds = time.monotonic() - begin
    said = []
    while not events.empty():
        said.append(events.get())
    return Recovery(what, number, seconds, said, prefix)


@dataclasses.dataclass
class Delivery:
    """Pictures sent through a client while the server was being killed."""

    sent: int
    answered: int
    wrong: int  # answers that are not those of their picture
    kills: int
    seconds: float


def deliver(count: int, kills: int) -> Delivery:
    """Send `count` pictures with retries while `kills` processes are killed; compare every answer with the truth."""
    good = neighbours()
    with supervised() as (supervisor, _), Client(supervisor.server.grpc_url, deadline=120, retries=60) as client:
        expected = [client.detect(picture).boxes for picture in good]
        begin, delivery = time.monotonic(), Delivery(count, 0, 0, 0, 0)
        for answer in client.detect_many((good[i % len(good)] for i in range(count)), batch_size=4):
            right = expected[delivery.answered % len(good)]
            delivery.wrong += len(answer) != len(right) or not np.allclose(answer.boxes, right, atol=0.1)
            delivery.answered += 1
            due = delivery.kills < kills and delivery.answered >= (delivery.kills + 1) * count / (kills + 1)
            if due and supervisor.restarts == delivery.kills:
                what, number = FAULTS[delivery.kills]
                os.kill(process_ids(supervisor.server, what)[0], number)
                delivery.kills += 1
        while supervisor.restarts < delivery.kills:  # the last may still be under way
            time.sleep(0.05)
        delivery.seconds = time.monotonic() - begin
    return delivery


def server_processes() -> set[int]:
    """Child processes of this one that run a server or a stub."""
    children = psutil.Process().children(recursive=True)
    return {process.pid for process in children if process.name().startswith("triton")}


def left_behind(recoveries: list[Recovery], before: set[int]) -> list[str]:
    """Shared memory of the failed servers, and server processes that were not there `before`."""
    regions = [str(region) for recovery in recoveries for region in SHM.glob(f"{recovery.region_prefix}*")]
    return regions + [f"process {pid}" for pid in server_processes() - before]
