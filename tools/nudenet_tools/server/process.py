"""The development server, the ``tritonserver`` of the PyPI package nvidia-pytriton, for the commands and the tests."""

from __future__ import annotations

import http.client
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from container import process
from container.process import Installation, Options, Ports, ServerError
from container.security import LOOPBACK
from container.server_log import NO_GPU_NOISE
from container.shared_memory import SHARED_MEMORY as SHM
from nudenet_tools.server import libpython

__all__ = [
    "LOOPBACK",
    "NO_GPU_NOISE",
    "SHM",
    "Installation",
    "Options",
    "Ports",
    "Server",
    "ServerError",
    "find_installation",
    "get_json",
    "rehearsal",
]


def find_installation() -> Installation:
    """NVIDIA's container layout if it is there, else the PyPI package nvidia-pytriton.

    Raises:
        ServerError: neither is installed, the package has no stub for this Python, or libpython is missing.
    """
    if Path("/opt/tritonserver/bin/tritonserver").is_file():
        return process.find_installation()
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        raise ServerError("no tritonserver found: run make setup (it installs nvidia-pytriton)")
    package = Path(next(iter(spec.submodule_search_locations)))
    server = package / "tritonserver"
    version = "{}.{}".format(*sys.version_info[:2])
    stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        raise ServerError(f"nvidia-pytriton has no Python backend for Python {version}: use 3.11 or 3.12")
    found = libpython.directory()
    if found is None:
        raise ServerError(
            f"{libpython.name()} is missing, Triton's Python backend needs it: "
            f"install libpython{version} (Debian, Ubuntu: apt-get install libpython{version})"
        )
    libraries = (package.parent / "nvidia_pytriton.libs", *([Path(found)] if found else []))
    return Installation(server / "bin" / "tritonserver", server / "backends", libraries, stub)


class Server(process.Server):
    """A running development server; a context manager. See `container.process.Server`."""

    find_installation = staticmethod(find_installation)


def rehearsal(stand_in: str = "openvino", **options: Any) -> Options:
    """Options of a server with the production configuration as it is, but `stand_in` in place of the plan.

    Args:
        stand_in: an engine: openvino, stand_in_slow, stand_in_fast.
        options: further fields of `Options`.
    """
    return Options(config_name="", stand_in=stand_in, **options)


def get_json(server: Server, path: str) -> dict:
    """GET one of the server's JSON endpoints, e.g. ``/v2/models/nudenet/config``."""
    connection = http.client.HTTPConnection(LOOPBACK, server.ports.http, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = json.loads(response.read() or b"{}")
    finally:
        connection.close()
    if response.status != 200:
        raise ServerError(f"GET {path}: {response.status} {body.get('error', '')}")
    return body
