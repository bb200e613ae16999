"""Whether a file can be written, asked before the minutes of work that fill it."""

from __future__ import annotations

import tempfile
from pathlib import Path


class OutputError(OSError):
    """The file cannot be written there; the message says why."""


def check_output(path: Path, *inputs: Path | None) -> None:
    """Refuse a file that could not be written, or that one of `inputs` would be lost to.

    Args:
        path: the file to write; its folder need not be there yet, and is not made.
        inputs: what the command reads.

    Raises:
        OutputError: a folder or a device, one of `inputs`, or a folder that takes no new file.
    """
    try:
        if path.exists() and not path.is_file():
            what = "a folder" if path.is_dir() else "not a regular file"
            raise OutputError(f"{path} is {what}, expected a file to write: name one")
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        with tempfile.TemporaryFile(dir=folder):  # permissions alone say nothing to root, or of a read-only mount
            pass
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}): name a file in another folder") from error
    if path.exists() and any(source and source.exists() and path.samefile(source) for source in inputs):
        raise OutputError(f"{path} is what this command reads, and would be overwritten: name another output")
