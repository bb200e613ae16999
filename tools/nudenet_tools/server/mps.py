"""CUDA MPS, which lets several processes work on one GPU at the same time instead of in turns."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

CONTROL = "nvidia-cuda-mps-control"
_PIPES, _LOGS = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"


class MpsError(RuntimeError):
    """MPS cannot be started; the message says what to do."""


def is_running() -> bool:
    """Whether programs started from here share the GPU through MPS: its control daemon lives."""
    try:
        pid = (Path(os.environ.get(_PIPES, "/tmp/nvidia-mps")) / f"{CONTROL}.pid").read_text().strip()
        return CONTROL.encode()[:15] == Path("/proc", pid, "comm").read_bytes().strip()
    except OSError:
        return False


@contextlib.contextmanager
def running() -> Iterator[None]:
    """MPS with pipes of its own for the programs that this process starts meanwhile; stopped afterwards.

    Raises:
        MpsError: the driver's MPS is not installed, or does not start.
    """
    if shutil.which(CONTROL) is None:
        raise MpsError(f"{CONTROL} is not installed; it comes with NVIDIA's driver (Debian: nvidia-cuda-mps)")
    with tempfile.TemporaryDirectory(prefix="nudenet-mps-") as folder:
        before = {name: os.environ.get(name) for name in (_PIPES, _LOGS)}
        os.environ.update({_PIPES: folder, _LOGS: folder})
        try:
            started = subprocess.run([CONTROL, "-d"], capture_output=True, text=True, timeout=30, check=False)
            if started.returncode:
                raise MpsError(f"{CONTROL} -d: {(started.stdout + started.stderr).strip()}")
            try:
                yield
            finally:
                subprocess.run([CONTROL], input="quit\n", text=True, capture_output=True, timeout=60, check=False)
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
