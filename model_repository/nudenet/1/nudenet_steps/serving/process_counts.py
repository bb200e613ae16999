"""Numbers that the processes of one server share without locks: each writes its own row, all read."""

from __future__ import annotations

import fcntl
import mmap
import os

import numpy as np

from nudenet_steps.serving import shm_files

_ROWS = 1024


class SharedTable:
    """INT64 in shared memory: a row for each process, and `common`, which all write.

    Args:
        kind: what it holds, without underscores.
        columns: numbers in a row.
        server: process id of the server; the one that started this Python model by default.
    """

    def __init__(self, kind: str, columns: int, server: int | None = None) -> None:
        path = shm_files.path(kind, "all", server)
        size = (2 + _ROWS) * columns * 8
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.truncate(size)  # unused rows take no memory
            cells = np.frombuffer(mmap.mmap(file.fileno(), size), np.int64).reshape(-1, columns)
            self._given, self.common, self._rows = cells[0, :1], cells[1], cells[2:]
            self.own = self._rows[self._given[0] % _ROWS]  # after as many loads, the first have long ended
            self.own[:] = 0
            self._given += 1
            fcntl.flock(file, fcntl.LOCK_UN)  # the mapping keeps a copy of the descriptor, and with it the lock

    @property
    def rows(self) -> np.ndarray:
        """INT64 [processes,columns] of all processes so far, those that have ended included."""
        return self._rows[: self._given[0]]


class ProcessCounts:
    """A count over several processes of one server.

    Args:
        kind: what is counted, without underscores.
        server: process id of the server; the one that started this Python model by default.
    """

    def __init__(self, kind: str, server: int | None = None) -> None:
        self._table = SharedTable(kind, 1, server)

    def total(self) -> int:
        """The count of all processes together."""
        return int(self._table.rows.sum())

    def add(self, count: int) -> None:
        """Count on, or down."""
        self._table.own[0] += count

    def close(self) -> None:
        """This process ends and has nothing in hand."""
        self._table.own[0] = 0
