"""A count over several processes of one server."""

from __future__ import annotations

import fcntl
import mmap
import os

from nudenet_steps.serving import shm_files

_CELLS = 8192  # of 8 bytes: 0: cells given out, 1: the note, then one for each process
_FIRST = 2
_CLOSED = -(2**63)  # the content of a cell whose process has ended in order


class ProcessCounts:
    """Each process counts in a cell of its own in shared memory, so that nobody locks or asks anybody.

    Args:
        kind: what is counted, without underscores.
        server: process id of the server; the parent of a Python model by default.
        counts: False for one that only looks on, and has no cell.
    """

    def __init__(self, kind: str, server: int | None = None, counts: bool = True) -> None:
        path = shm_files.path(kind, "all", server)
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.truncate(_CELLS * 8)
            self._cells = memoryview(mmap.mmap(file.fileno(), _CELLS * 8)).cast("q")
            self._own = max(_FIRST, self._cells[0])
            if counts and self._own < _CELLS:
                self._cells[0] = self._own + 1
            fcntl.flock(file, fcntl.LOCK_UN)  # the mapping keeps a copy of the descriptor, and with it the lock
        if counts and self._own == _CELLS:
            raise RuntimeError(f"{path}: {_CELLS} instances have been loaded since the server started; restart it")

    def counts(self) -> list[int]:
        """The count of each process."""
        seen = None
        while True:  # a reader that is interrupted between two cells would count what never was
            before, seen = seen, self._cells[_FIRST : self._cells[0]].tolist()
            if seen == before:
                return [count for count in seen if count != _CLOSED]

    def total(self) -> int:
        """The count of all processes together."""
        return sum(self.counts())

    def add(self, count: int) -> None:
        """Count on, or down."""
        self._cells[self._own] += count

    def close(self) -> None:
        """This process counts no more, and is none of those that do."""
        self._cells[self._own] = _CLOSED

    @property
    def note(self) -> int:
        """One more number, which all processes share."""
        return self._cells[1]

    @note.setter
    def note(self, value: int) -> None:
        self._cells[1] = value
