"""Keep one tritonserver answering: Triton never restarts a dead Python process and goes on saying that it is ready.

Three watches: dead processes several times a second; every few seconds a canary picture through the whole ensemble,
which also sees a server that hangs, in its own crash handler for example, and processes that hang while others of their
model answer. `make serve` replaces the server; process 1 of a container ends, and the container is started again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from container.healthcheck import GONE, Canary, CanaryError, HttpCanary, ailing, process_state
from container.process import Server, ServerError


@dataclass(frozen=True)
class Watch:
    """How closely to look; all in seconds."""

    processes_every: float = 0.25
    canary_every: float = 5.0
    canary_timeout: float = 5.0
    longest_wait: float = 30.0  # between restarts that do not help
    healthy_after: float = 60.0  # running this long, the next restart does not wait
    stop_timeout: float = 1.0  # a server with a dead stub never ends by itself


class Supervisor:
    """Runs a server and watches it. One thread calls `run` or `run_once`, any thread may set its event.

    Args:
        server: not started yet; its ports stay the same over restarts.
        on_event: gets one line for each failure and each recovery.
        watch: intervals.
    """

    def __init__(self, server: Server, on_event: Callable[[str], None], watch: Watch | None = None) -> None:
        self.server = server
        self.restarts = 0
        self._on_event = on_event
        self._watch = watch or Watch()
        self._stubs: list[tuple[str, int]] = []  # model, process id
        self._ailing: dict[int, str] = {}  # at the last look: process id, what is wrong
        self._ready_since = 0.0

    def run(self, stopped: threading.Event, on_ready: Callable[[Server], None]) -> None:
        """Serve until `stopped` is set, then end the server; replace it whenever it fails.

        Args:
            on_ready: called once, when the first server is ready.

        Raises:
            ServerError: the first start failed. Later failures are retried.
        """
        try:
            if not self._start(stopped):
                return
            on_ready(self.server)
            wait = 0.0
            while (failure := self._serve(stopped)) is not None:
                failed = time.monotonic()
                healthy = failed - self._ready_since >= self._watch.healthy_after
                wait = 0.0 if healthy else wait
                self._on_event(f"restarting the server: {failure}" + (f"; first waiting {wait:.0f} s" if wait else ""))
                while not self._restart(stopped, wait):
                    if stopped.is_set():
                        return
                    wait = self._longer(wait)
                self.restarts += 1
                self._on_event(f"serving again after {time.monotonic() - failed:.1f} s (restart {self.restarts})")
                wait = self._longer(wait)
        finally:
            self.server.stop()

    def run_once(self, stopped: threading.Event, on_ready: Callable[[Server], None]) -> str | None:
        """Serve until `stopped` is set or the server fails, then end it.

        Args:
            on_ready: called when the server is ready.

        Returns:
            what went wrong; None when told to stop.

        Raises:
            ServerError: the start failed.
        """
        failure = None
        try:
            if self._start(stopped):
                on_ready(self.server)
                failure = self._serve(stopped)
        finally:
            if failure is None:
                self.server.stop()
            else:
                self.server.stop(self._watch.stop_timeout)
        return failure

    def _longer(self, wait: float) -> float:
        return min(self._watch.longest_wait, max(1.0, 2 * wait))

    def _start(self, stopped: threading.Event) -> bool:
        """Whether it is ready; False where `stopped` was set meanwhile."""
        if not self.server.start(stopped):
            return False
        self._ready_since = time.monotonic()
        self._stubs = self.server.stubs()
        self._ailing = {}
        return True

    def _restart(self, stopped: threading.Event, wait: float) -> bool:
        self.server.stop(self._watch.stop_timeout)
        if stopped.wait(wait):
            return False
        try:
            return self._start(stopped)
        except ServerError as error:
            self._on_event(f"the server does not start: {error}; next try in {self._longer(wait):.0f} s")
            return False

    def _serve(self, stopped: threading.Event) -> str | None:
        """Watch a running server; returns what went wrong, or None when told to stop."""
        next_canary = time.monotonic() + self._watch.canary_every
        # An exposed server's gRPC may ask for a client certificate; HTTP stays on loopback in any case.
        exposed = self.server.options.exposure is not None
        with HttpCanary(self.server.http_url) if exposed else Canary(self.server.grpc_url) as canary:
            while not stopped.wait(self._watch.processes_every):
                failure = self._dead_process()
                if failure is None and time.monotonic() >= next_canary:
                    failed = self._failing_canary(canary) or self._hanging_process()
                    # A process that died meanwhile is the better explanation.
                    failure = failed and (self._dead_process() or failed)
                    next_canary = time.monotonic() + self._watch.canary_every
                if failure is not None:
                    return failure
        return None

    def _dead_process(self) -> str | None:
        process = self.server.process
        assert process is not None
        status = process.poll()
        if status is not None:
            return f"tritonserver ended with status {status}"
        # A zombie is dead, too: Triton does not collect them.
        dead = next((entry for entry in self._stubs if process_state(entry[1])[0] in GONE), None)
        return f"a Python process of {dead[0]} died (process {dead[1]})" if dead else None

    def _hanging_process(self) -> str | None:
        """A process that is not well now, and was not the last time."""
        assert self.server.process is not None
        before, self._ailing = self._ailing, ailing(self.server.process.pid)
        lasting = before.keys() & self._ailing.keys()
        return self._ailing[min(lasting)] if lasting else None

    def _failing_canary(self, canary: Canary | HttpCanary) -> str | None:
        for attempt in (1, 2):
            try:
                canary.ask(self._watch.canary_timeout)
            except CanaryError as error:
                if error.final or attempt == 2:
                    return f"the canary picture failed: {error}"
            else:
                break
        return None
