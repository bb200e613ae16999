"""A sign of life of each Python step's process, for a watcher outside.

A process that hangs in an execution keeps its requests for ever, and Triton says nothing: the model's other processes
answer the rest, a canary picture too. So each process notes since when it has been at work, and
tools/container/healthcheck.py reads that.
"""

from __future__ import annotations

import mmap
import os
import struct
import time

from nudenet_steps.serving import shm_files

NOTE = struct.Struct("=qq")  # at work since, monotonic clock, 0: idle; longest time at work that is no alarm. Both ns
LONGEST_SECONDS = 30  # eight of the worst pictures that the limits let through take 6 s


class Heartbeat:
    """A context manager around each execution; writing the note takes less than a microsecond.

    Args:
        name: of the instance, for messages.
        server: process id of the server; the one that started this Python model by default.
    """

    def __init__(self, name: str, server: int | None = None) -> None:
        self.path = shm_files.path("heartbeat", os.getpid(), server)
        content = NOTE.pack(0, LONGEST_SECONDS * 10**9) + name.encode()
        with os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "r+b") as file:
            file.write(content)
            file.flush()
            self._since = memoryview(mmap.mmap(file.fileno(), NOTE.size)).cast("q")

    def __enter__(self) -> None:
        self._since[0] = time.monotonic_ns()

    def __exit__(self, *_: object) -> None:
        self._since[0] = 0

    def is_well(self) -> bool:
        """Whether this process is idle, or not at work for too long on one batch."""
        since = self._since[0]
        return since == 0 or time.monotonic_ns() - since < LONGEST_SECONDS * 10**9

    def close(self) -> None:
        """Nobody needs to look any more."""
        self.path.unlink(missing_ok=True)
