#!/usr/bin/env python3
"""A page in the browser: drop a picture or a clip, see what is found, with boxes or censored."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from container import repository
from nudenet_tools.server import process, status
from nudenet_tools.server.prepare import tuned_options

# Gradio and the libraries it brings send nothing anywhere; read when they are imported.
QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}

console = Console(stderr=True, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def find_server(url: str, http_url: str) -> Iterator[tuple[str, str]]:
    """The server to ask, as HOST:PORT of gRPC and of HTTP: the one that answers at `http_url`, else a new one.

    Raises:
        process.ServerError: a new one does not start.
    """
    try:
        status.read_statistics(http_url)
    except status.StatusError:
        with process.Server(tuned_options()) as running:
            console.print(f"no server at {http_url}: started one, {running.engine()}")
            yield running.grpc_url, running.http_url
    else:
        yield url, http_url


def _check_port(port: int) -> None:
    """Fail at once, not after seconds of imports. Raises OSError."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((process.LOOPBACK, port))
        except OSError as error:
            raise OSError(f"port {port} cannot be used ({error.strerror}): choose another one with --port") from error


def ui(
    url: Annotated[str, typer.Option(help="HOST:PORT of the server's gRPC; default: 127.0.0.1 and GRPC_PORT.")] = "",
    http_url: Annotated[str, typer.Option(help="HOST:PORT of its HTTP; default: that host and HTTP_PORT.")] = "",
    grpc_port: Annotated[int, typer.Option(envvar="GRPC_PORT", hidden=True)] = 8001,
    http_port: Annotated[int, typer.Option(envvar="HTTP_PORT", hidden=True)] = 8000,
    port: Annotated[int, typer.Option(envvar="UI_PORT", min=0, max=65535, help="Of the page; 0: any.")] = 7860,
) -> None:
    """Serve the page on this machine's loopback interface until Ctrl-C. Without a server to ask, one is started."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    given = bool(url or http_url)
    url = url or f"127.0.0.1:{grpc_port}"
    http_url = http_url or f"{url.rpartition(':')[0]}:{http_port}"
    with contextlib.ExitStack() as stack:
        # What people drop here stays in this folder, and goes with the process.
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="nudenet-ui-"))
        os.environ.update(QUIET, GRADIO_TEMP_DIR=folder)
        os.environ["NO_PROXY"] = ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1", "localhost"]))
        try:
            port = port or process.Ports.free().http
            _check_port(port)
            if not given:
                url, http_url = stack.enter_context(find_server(url, http_url))
            from nudenet_tools.ui import (
                page,  # seconds of imports, which need the environment above
                views,
            )

            viewer = stack.enter_context(contextlib.closing(views.Viewer(url, http_url, Path(folder))))
            address = stack.enter_context(page.serving(page.build(viewer, http_url), port))
        except (OSError, process.ServerError, repository.ConfigError) as error:
            console.print(f"ui: {error}", style="red", markup=False)
            raise typer.Exit(1) from error
        console.print(f"[bold]{address}[/]  asks the server at {url}; Ctrl-C stops it")
        stopped.wait()


if __name__ == "__main__":
    typer.run(ui)
