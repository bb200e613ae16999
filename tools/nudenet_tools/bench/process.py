"""Measuring in a process of its own, so that no peer runs under another one's thread settings, and its CPU time."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import psutil

READY_SECONDS = 60.0


class PeerError(RuntimeError):
    """A peer cannot be started or fails while it is measured."""


@dataclass
class Sample:
    """What one process did."""

    pictures: int
    seconds: float
    cpu_seconds: float
    latencies: list[float] = field(default_factory=list)  # seconds, one a call
    failures: int = 0


@dataclass(frozen=True)
class Peer:
    """Figures of one peer; latencies in ms a call, CPU time in ms a picture."""

    throughput: float  # pictures a second
    p50: float
    p95: float
    p99: float
    core_ms: float  # all processes, the load client included
    client_core_ms: float = 0.0  # of it the load client: with client-side preprocessing also decode and NMS
    failures: int = 0
    concurrency: int = 1

    def as_dict(self) -> dict:
        return asdict(self)


def run_for(seconds: float, call: Callable[[int], int]) -> Sample:
    """Repeat `call` (argument: pictures done so far; result: pictures of this call) in this thread."""
    sample = Sample(0, 0.0, time.process_time())
    begin = now = time.perf_counter()
    while now - begin < seconds:
        sample.pictures += call(sample.pictures)
        sample.latencies.append(time.perf_counter() - now)
        now = time.perf_counter()
    sample.seconds, sample.cpu_seconds = now - begin, time.process_time() - sample.cpu_seconds
    return sample


def _serve(connection, build: Callable[..., Callable[[float], Sample]], arguments: tuple) -> None:
    """Body of the process: build once, then measure as often as asked, until the other end closes."""
    try:
        measure = build(*arguments)
        connection.send(None)
        while True:
            connection.send(measure(connection.recv()))
    except (EOFError, ConnectionError, KeyboardInterrupt):  # the other end is gone
        return
    except Exception as error:
        connection.send(PeerError(f"{build.__name__}: {error!r}"))


class Child:
    """A process that measures when told to; several can be told at once.

    Args:
        build: a module's function; called with `arguments` in the process, returns what measures for some seconds.
    """

    def __init__(self, build: Callable[..., Callable[[float], Sample]], *arguments: object) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, build, arguments), daemon=True)
        self._process.start()
        theirs.close()
        self._name = build.__name__
        self._is_ready = False

    def begin(self, seconds: float) -> None:
        """Measure from now on; returns at once."""
        self.wait_ready()
        self._connection.send(seconds)

    def result(self, seconds: float) -> Sample:
        """What was measured since `begin`, which was told the same `seconds`.

        Raises:
            PeerError: it failed, died or does not answer.
        """
        return self._receive(seconds + READY_SECONDS)

    def wait_ready(self) -> None:
        """Wait until it is built.

        Raises:
            PeerError: it failed, died or does not answer.
        """
        if not self._is_ready:
            self._receive(READY_SECONDS)
            self._is_ready = True

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join(2)
        self._process.kill()
        self._process.join()

    def _receive(self, seconds: float) -> Sample:
        if not self._connection.poll(seconds):
            raise PeerError(f"{self._name} does not answer within {seconds:.0f} s")
        try:
            answer = self._connection.recv()
        except EOFError as error:
            raise PeerError(f"{self._name}: its process ended") from error
        if isinstance(answer, PeerError):
            raise answer
        return answer


def tree_cpu_seconds(pid: int) -> float:
    """CPU time so far of a process and all that it started and that still run."""
    root = psutil.Process(pid)
    times = [process.cpu_times() for process in (root, *root.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def summarise(samples: Sequence[Sample], server_cpu_seconds: float | None = None) -> Peer:
    """Figures of processes that ran side by side.

    Args:
        server_cpu_seconds: CPU time of the server that the samples' processes loaded; None where they did all.

    Raises:
        PeerError: not one picture was done.
    """
    pictures = sum(sample.pictures for sample in samples)
    if not pictures:
        raise PeerError("no picture was answered")
    latencies = np.concatenate([sample.latencies for sample in samples]) * 1e3
    p50, p95, p99 = (float(value) for value in np.percentile(latencies, (50, 95, 99)))
    own = sum(sample.cpu_seconds for sample in samples)
    return Peer(
        sum(sample.pictures / sample.seconds for sample in samples),
        p50,
        p95,
        p99,
        (own + (server_cpu_seconds or 0.0)) * 1e3 / pictures,
        0.0 if server_cpu_seconds is None else own * 1e3 / pictures,
        sum(sample.failures for sample in samples),
    )
