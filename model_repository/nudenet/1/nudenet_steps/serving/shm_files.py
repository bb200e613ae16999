"""Small files in /dev/shm that belong to one run of the server."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")


def path(kind: str, name: object, server: int | None = None) -> Path:
    """Where a step of `server` keeps its file; what servers that have ended left behind is removed on the way.

    Args:
        kind: what the file is for, without underscores.
        name: tells it from others of its kind.
        server: process id of the server; the parent of a Python model by default.
    """
    server = os.getppid() if server is None else server
    for left in files():
        if not Path("/proc", left.name.split("_")[2]).exists():
            with contextlib.suppress(OSError):  # somebody else's
                left.unlink()
    started = Path(f"/proc/{server}/stat").read_text().rsplit(")", 1)[1].split()[19]  # process ids come again
    return SHARED_MEMORY / f"nudenet_{kind}_{server}_{started}_{name}"


def files(server: int | str = "*") -> Iterator[Path]:
    """The files of `server`, a process id; of all servers by default."""
    return SHARED_MEMORY.glob(f"nudenet_*_{server}_*_*")
