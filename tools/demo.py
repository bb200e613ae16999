#!/usr/bin/env python3
"""The main job in one go: start the server, send the bundled 720p picture, show what comes back, stop the server."""

from __future__ import annotations

import os
import subprocess
import sys

import server
import tuning
from check_plan import PlanError
from rich.console import Console
from serve import choose_config, ensure_onnx, repository

PICTURE = repository.ROOT / "tests" / "data" / "astronaut_720p.jpg"
OUTPUT = repository.ROOT / "out" / "demo"

console = Console(highlight=False)


def demo() -> int:
    """Exit code of the demo: 0 when the picture was answered."""
    name = choose_config(server.find_installation())
    if name:
        ensure_onnx()
    options = server.Options(
        ports=server.Ports.free(), config_name=name, tuning=tuning.for_config(name)
    )  # free ports: beside a running server too
    with server.Server(options) as running:
        console.print(f"tritonserver ready after {running.seconds_to_ready:.1f} s: {running.engine()}")
        detect = [sys.executable, str(repository.ROOT / "tools" / "detect.py"), os.path.relpath(PICTURE)]
        return subprocess.run([*detect, "--url", running.grpc_url, "--annotate", str(OUTPUT)], check=False).returncode


if __name__ == "__main__":
    try:
        sys.exit(demo())
    except (server.ServerError, repository.ConfigError, PlanError) as error:
        sys.exit(f"demo: {error}")
