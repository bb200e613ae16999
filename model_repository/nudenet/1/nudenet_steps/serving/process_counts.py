"""Numbers that the processes of one server share without locks: each writes its own row, all read."""

from __future__ import annotations

import fcntl
import itertools
import mmap
import operator
import os
from collections.abc import Iterator

from nudenet_steps.serving import shm_files

_ROWS = 1024


class SharedTable:
    """INT64 in shared memory: a row for each process, and `common`, which all write.

    Memoryviews, not arrays: between two executions numpy's code has left the caches, and a few numbers take it 50 us.

    Args:
        kind: what it holds, without underscores.
        columns: numbers in a row.
        server: process id of the server; the one that started this Python model by default.
    """

    def __init__(self, kind: str, columns: int, server: int | None = None) -> None:
        path = shm_files.path(kind, "all", server)
        size = 8 * (columns + _ROWS * (1 + columns))
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.truncate(size)  # unused rows take no memory
            cells = memoryview(mmap.mmap(file.fileno(), size)).cast("q")
            self.common, rows = cells[:columns], cells[columns:]
            # Each row begins with the process id of its owner. The first whose owner has ended is taken, as it is.
            self._rows = [rows[start : start + 1 + columns] for start in range(0, len(rows), 1 + columns)]
            own = next((row for row in self._rows if not shm_files.is_alive(row[0])), None)
            if own is None:
                raise RuntimeError(f"{path}: all {_ROWS} rows are taken; a server may have as many Python steps")
            own[0] = os.getpid()
            self.own = own[1:]
            fcntl.flock(file, fcntl.LOCK_UN)  # the mapping keeps a copy of the descriptor, and with it the lock

    def rows(self) -> list[memoryview]:
        """INT64 [columns] of each process, some that have ended included."""
        return [row[1:] for row in self._taken()]

    def ended(self) -> list[memoryview]:
        """The rows of processes that have ended."""
        return [row[1:] for row in self._taken() if not shm_files.is_alive(row[0])]

    def _taken(self) -> Iterator[memoryview]:
        return itertools.takewhile(operator.itemgetter(0), self._rows)


class ProcessCounts:
    """A count over several processes of one server.

    Args:
        kind: what is counted, without underscores.
        server: process id of the server; the one that started this Python model by default.
    """

    def __init__(self, kind: str, server: int | None = None) -> None:
        self._table = SharedTable(kind, 1, server)
        self.close()  # whoever had the row before
        for row in self._table.ended():
            row[0] = 0

    def total(self) -> int:
        """The count of all processes together."""
        return sum(row[0] for row in self._table.rows())

    def add(self, count: int) -> None:
        """Count on, or down."""
        self._table.own[0] += count

    def close(self) -> None:
        """This process ends and has nothing in hand."""
        self._table.own[0] = 0
