#!/usr/bin/env python3
"""The main job in one go: start the process, send the bundled 720p picture, show what comes back, stop the process."""

from __future__ import annotations

import os
import subprocess
import sys

from rich.console import Console

from container.repository import ConfigError
from nudenet_tools import ROOT
from nudenet_tools.server import process
from nudenet_tools.server.prepare import tuned_options

PICTURE = ROOT / "tests" / "data" / "astronaut_720p.jpg"
OUTPUT = ROOT / "out" / "demo"

console = Console(highlight=False)


def demo() -> int:
    """Exit code of the demo: 0 when the picture was answered."""
    with process.Server(tuned_options()) as running:  # on free ports: beside a running server, too
        console.print(f"tritonserver ready after {running.seconds_to_ready:.1f} s: {running.engine_and_reason()}")
        detect = [sys.executable, str(ROOT / "tools" / "detect.py"), os.path.relpath(PICTURE)]
        return subprocess.run([*detect, "--url", running.grpc_url, "--annotate", str(OUTPUT)], check=False).returncode


if __name__ == "__main__":
    try:
        sys.exit(demo())
    except (process.ServerError, ConfigError) as error:
        sys.exit(f"demo: {error}")
