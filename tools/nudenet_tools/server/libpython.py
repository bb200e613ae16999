"""Find the shared libpython that Triton's Python backend stub loads. Standard library only: set-up runs it first."""

from __future__ import annotations

import ctypes
import sys
import sysconfig
from pathlib import Path


def name() -> str:
    """File name of the library, e.g. ``libpython3.11.so.1.0``."""
    return "libpython{}.{}.so.1.0".format(*sys.version_info[:2])


def directory() -> str | None:
    """Directory to put on LD_LIBRARY_PATH so that the stub finds libpython.

    Returns:
        the directory; "" when the dynamic linker finds it unaided; None when there is no such library.
    """
    for candidate in (sysconfig.get_config_var("LIBDIR"), Path(sys.base_prefix) / "lib"):
        if candidate and (Path(candidate) / name()).is_file():
            return str(candidate)
    try:
        ctypes.CDLL(name())
    except OSError:
        return None
    return ""


if __name__ == "__main__":
    found = directory()
    if found is None:
        sys.exit(f"{name()} not found")
    print(found or "found by the dynamic linker")
