#!/usr/bin/env python3
"""A plain HTTP interface in front of running Triton servers: pictures of any format in, JSON out."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Annotated

import typer
import uvicorn
from rich.console import Console

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
            "with --keys (make one with new-key)",
            style="red",
            markup=False,
        )
        raise typer.Exit(2)
    limits = Limits(
        max_body, max_pictures, pixels=max_pixels, frames=max_frames, rate=rate, burst=burst, in_flight=in_flight
    )
    settings = Settings(
        tuple(url or [f"127.0.0.1:{grpc_port}"]),
        deadline,
        policy,
        keys,
        _networks(proxy or []),
        docs,
        converters,
        limits=limits,
    )
    try:
        application = gateway_app.create(settings)
        application.state.gateway.metrics.serve(metrics_host, metrics_port)
    except (gateway_keys.KeyFileError, OSError) as error:
        console.print(f"gateway: {error}", style="red", markup=False)
        raise typer.Exit(1) from error
    console.print(f"[bold]http://{host}:{port}[/]  asks {', '.join(settings.urls)}; metrics at port {metrics_port}")
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
def new_key(name: Annotated[str, typer.Argument(help="Whose key it is, for metrics and rates.")]) -> None:
    """Make an API key: the key itself goes to standard output, the line for the key file to standard error."""
    key = gateway_keys.new_key()
    typer.echo(key)
    typer.echo(gateway_keys.line(key, name), err=True)


@app.command()
def openapi() -> None:
    """Print the OpenAPI description."""
    typer.echo(json.dumps(gateway_app.create(Settings()).openapi(), indent=2))


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


if __name__ == "__main__":
    app()
