#!/usr/bin/env python3
"""A plain HTTP interface in front of running Triton servers: pictures of any format in, JSON out."""

from __future__ import annotations

import ipaddress
import json
import re
import socket
from pathlib import Path
from typing import Annotated

import typer
import uvicorn
from rich.console import Console

from nudenet_client import ClientError
from nudenet_client.transport import grpc_options
from nudenet_tools.gateway import app as gateway_app
from nudenet_tools.gateway import keys as gateway_keys
from nudenet_tools.gateway.connections import BoundedConnection
from nudenet_tools.gateway.settings import Limits, Settings

LOOPBACK = "127.0.0.1"

app = typer.Typer(add_completion=False, no_args_is_help=False)
console = Console(stderr=True, highlight=False, soft_wrap=True)


def _networks(texts: list[str]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    try:
        return tuple(ipaddress.ip_network(text) for text in texts)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--proxy") from error


@app.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    url: Annotated[
        list[str] | None,
        typer.Option(help="A server's gRPC host and port; repeat it for several. A name stands for all its addresses."),
    ] = None,
    grpc_port: Annotated[int, typer.Option(envvar="GRPC_PORT", hidden=True)] = 8001,
    host: Annotated[str, typer.Option(help="Address to listen on; another one than loopback needs --keys.")] = LOOPBACK,
    port: Annotated[int, typer.Option(envvar="GATEWAY_PORT", min=1, max=65535)] = 8080,
    metrics_host: Annotated[str, typer.Option(help="Address of /metrics.")] = LOOPBACK,
    metrics_port: Annotated[int, typer.Option(envvar="GATEWAY_METRICS_PORT", min=1, max=65535)] = 8081,
    keys: Annotated[Path | None, typer.Option(envvar="GATEWAY_KEYS", help="File of API keys, see new-key.")] = None,
    policy: Annotated[str, typer.Option(help="Of /v1/moderate where the request names none.")] = "standard",
    deadline: Annotated[float, typer.Option(min=0.001, help="Seconds a request may take.")] = 10.0,
    rate: Annotated[float, typer.Option(min=0.001, help="Requests a second of one key, in this process.")] = 50.0,
    burst: Annotated[int, typer.Option(min=1, help="Requests of one key at once.")] = 100,
    in_flight: Annotated[int, typer.Option(min=1, help="Requests at work; more get 503.")] = 64,
    max_body: Annotated[int, typer.Option(min=1, help="Bytes of a request.")] = 64_000_000,
    max_pictures: Annotated[int, typer.Option(min=1, help="Pictures of a request.")] = 10,
    max_pixels: Annotated[int, typer.Option(min=1, help="Of a picture that is no JPEG, over all frames.")] = 50_000_000,
    max_frames: Annotated[int, typer.Option(min=1, help="Of an animation.")] = 64,
    converters: Annotated[int, typer.Option(min=1, help="Child processes that convert.")] = 2,
    proxy: Annotated[list[str] | None, typer.Option(help="Network whose X-Forwarded-For is believed.")] = None,
    docs: Annotated[bool, typer.Option("--docs", help="Serve /docs and /openapi.json.")] = False,
) -> None:
    """Serve until Ctrl-C."""
    if context.invoked_subcommand is not None:
        return
    if keys is None and not _is_loopback(host):
        console.print(
            f"gateway: {host} is reached by other machines, and anybody there could use it: name a file of API keys "
            "with --keys (make one with new-key NAME --keys FILE)",
            style="red",
            markup=False,
        )
        raise typer.Exit(2)
    if not re.fullmatch(gateway_app.POLICY, policy):
        raise typer.BadParameter(f"{policy!r} is no policy's name", param_hint="--policy")
    urls = tuple(url or [f"127.0.0.1:{grpc_port}"])
    try:
        for one in urls:
            grpc_options(one)
    except ClientError as error:
        raise typer.BadParameter(str(error), param_hint="--url") from error
    limits = Limits(
        max_body, max_pictures, pixels=max_pixels, frames=max_frames, rate=rate, burst=burst, in_flight=in_flight
    )
    settings = Settings(
        urls,
        deadline,
        policy,
        keys,
        _networks(proxy or []),
        docs,
        host,
        converters,
        limits=limits,
    )
    try:
        application = gateway_app.create(settings)
        if port == metrics_port and host == metrics_host:
            raise OSError(f"--port and --metrics-port are both {port}")
        _check_port(host, port, "--port")  # uvicorn takes it later, and would only log that it cannot
        _check_port(metrics_host, metrics_port, "--metrics-port")
        application.state.gateway.metrics.serve(metrics_host, metrics_port)
    except (gateway_keys.KeyFileError, OSError) as error:
        console.print(f"gateway: {error}", style="red", markup=False)
        raise typer.Exit(1) from error
    shown = f"[{host}]" if ":" in host else host
    console.print(
        f"http://{shown}:{port}  asks {', '.join(settings.urls)}; metrics at port {metrics_port}", markup=False
    )
    # Who a client is decides the gateway: uvicorn would believe any X-Forwarded-For from loopback.
    uvicorn.run(
        application,
        host=host,
        port=port,
        log_level="warning",
        proxy_headers=False,
        server_header=False,
        http=BoundedConnection,
    )


@app.command()
def new_key(
    name: Annotated[str, typer.Argument(help="Whose key it is, for rates; 1 to 64 of A-Z, a-z, 0-9, '.', '_', '-'.")],
    keys: Annotated[Path, typer.Option(envvar="GATEWAY_KEYS", help="Key file that gets its SHA-256 and the name.")],
) -> None:
    """Make an API key, print it, and add its line to the key file."""
    try:
        typer.echo(gateway_keys.add(keys, name))
    except gateway_keys.KeyFileError as error:
        console.print(f"gateway: {error}", style="red", markup=False)
        raise typer.Exit(1) from error


@app.command()
def openapi() -> None:
    """Print the OpenAPI description."""
    typer.echo(json.dumps(gateway_app.create(Settings()).openapi(), indent=2))


def _check_port(host: str, port: int, option: str) -> None:
    """Raises OSError: it is taken, or the host has no such address."""
    try:
        family, kind, number, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, number) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        raise OSError(f"{host}, port {port}: {error.strerror}; choose another one with {option}") from error


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


if __name__ == "__main__":
    app()
