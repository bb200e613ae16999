"""The processes of this machine, read from /proc: minimal container images have no ``ps``."""

from __future__ import annotations

from pathlib import Path

_SESSION = 3  # fields of /proc/PID/stat behind the name: state, parent, group, session


def command_lines(session: int | None = None) -> dict[int, str]:
    """Command line of each running process, by process id.

    Args:
        session: only processes of the session with this id; None: all that this user may read.
    """
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            arguments = (entry / "cmdline").read_bytes().rstrip(b"\0")
        except OSError:  # it has just ended, or is somebody else's
            continue
        if arguments and (session is None or int(fields[_SESSION]) == session):
            found[int(entry.name)] = arguments.replace(b"\0", b" ").decode(errors="replace")
    return found
