"""What a run of the server keeps in /dev/shm, and the removal of what runs before it left there.

A server that is killed leaves its regions behind, 70 MB and more. A container's own /dev/shm goes with it, but an
emptyDir in Kubernetes outlives the container: after a few kills it is full, and no server starts any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from pathlib import Path
from types import TracebackType

from container.healthcheck import is_running

SHARED_MEMORY = Path("/dev/shm")
PREFIX = "nudenet-triton-"
_OWNER = ".owner"


class Region:
    """The names of one run: everything it keeps here begins with `prefix`.

    A file with a lock belongs to each run. The lock is held as long as any process of the run lives, whatever its
    process id and in whichever container, so that the next run knows what nobody uses any more. A context manager.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or SHARED_MEMORY
        self.prefix = f"{PREFIX}{secrets.token_hex(6)}"
        self._owner = self._folder / f"{self.prefix}{_OWNER}"
        new = self._owner.with_name(f".{self._owner.name}")  # not found by others before it is locked
        self.lock = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)  # for the server to inherit
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        new.rename(self._owner)

    def __enter__(self) -> Region:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.remove()

    def bytes(self) -> int:
        """What the regions take, in bytes of memory."""
        return sum(_size(path) for path in self._folder.glob(f"{self.prefix}*"))

    def remove(self) -> None:
        """Remove everything of this run, whose processes have ended. Safe to call twice."""
        _remove(self._folder, self.prefix)
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1


def remove_leftovers(folder: Path | None = None) -> int:
    """Remove what runs left that have no living process.

    Returns:
        how many bytes of memory that freed.
    """
    folder = folder or SHARED_MEMORY
    freed = 0
    for owner in folder.glob(f"{PREFIX}*{_OWNER}"):
        try:
            lock = os.open(owner, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:  # just removed, or somebody else's
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue  # a living run's
        else:
            freed += _remove(folder, owner.name.removesuffix(_OWNER))
        finally:
            os.close(lock)
    return freed + _remove_files_of_dead_steps(folder)


def free_bytes(folder: Path | None = None) -> int:
    """Bytes that are free in /dev/shm."""
    state = os.statvfs(folder or SHARED_MEMORY)
    return state.f_bavail * state.f_frsize


def total_bytes(folder: Path | None = None) -> int:
    """Size of /dev/shm in bytes."""
    state = os.statvfs(folder or SHARED_MEMORY)
    return state.f_blocks * state.f_frsize


def _remove_files_of_dead_steps(folder: Path) -> int:
    """The small files of nudenet_steps.serving.shm_files: nudenet_KIND_SERVER_STARTED_NAME."""
    freed = 0
    for path in folder.glob("nudenet_*_*_*_*"):
        server, started = path.name.split("_")[2:4]
        if not is_running(server, started):
            freed += _unlink(path)
    return freed


def _remove(folder: Path, prefix: str) -> int:
    # The owner's file last: if this is cut short, the next run goes on.
    found = sorted(folder.glob(f"{prefix}*"), key=lambda path: path.name.endswith(_OWNER))
    return sum(_unlink(path) for path in found)


def _unlink(path: Path) -> int:
    size = _size(path)
    with contextlib.suppress(OSError):
        path.unlink()
        return size
    return 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0
