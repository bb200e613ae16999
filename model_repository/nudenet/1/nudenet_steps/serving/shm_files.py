"""Small files in /dev/shm that belong to one run of the server."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
_STUB = "triton_python_backend_stub"  # Triton starts it with its own process id among the arguments


def path(kind: str, name: object, server: int | None = None) -> Path:
    """Where a step of `server` keeps its file; what servers that have ended left behind is removed on the way.

    Args:
        kind: what the file is for, without underscores.
        name: tells it from others of its kind.
        server: process id of the server; the one that started this Python model by default.

    Raises:
        ProcessLookupError: the server has ended.
    """
    server = server_process() if server is None else server
    for left in files():
        of, started = left.name.split("_")[2:4]
        if _start_time(of) != started:
            with contextlib.suppress(OSError):  # somebody else's
                left.unlink()
    if not (started := _start_time(server)):
        raise ProcessLookupError(f"the server ({server}) has ended")
    return SHARED_MEMORY / f"nudenet_{kind}_{server}_{started}_{name}"


def is_alive(pid: int) -> bool:
    """Whether there is such a process, zombies aside."""
    return bool(_start_time(pid))


def _start_time(pid: int | str) -> str:
    """Of a process, as /proc has it; empty if it is gone or a zombie. Process ids come again."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def server_process() -> int:
    """Process id of the tritonserver that started this Python model: its parent.

    Raises:
        ProcessLookupError: it ended while this process was starting. The parent now is whoever adopts orphans, often
            process 1, and a file in its name would never be removed.
    """
    parent = os.getppid()
    program, *arguments = Path("/proc/self/cmdline").read_bytes().split(b"\0")
    if Path(os.fsdecode(program)).name == _STUB and str(parent).encode() not in arguments:
        name = Path(f"/proc/{parent}/comm").read_text().strip()
        if name != "tritonserver":
            raise ProcessLookupError(f"the server of this process has ended: its parent is {name} ({parent}) now")
    return parent


def files(server: int | str = "*") -> Iterator[Path]:
    """The files of `server`, a process id; of all servers by default."""
    return SHARED_MEMORY.glob(f"nudenet_*_{server}_*_*")
