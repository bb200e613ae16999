"""One request over gRPC or HTTP. Errors leave as the client's own; nothing is tried twice here."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tritonclient import grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from . import endpoint, request
from .detections import Detections
from .endpoint import Endpoint
from .errors import ClientError, DeadlineExceeded, ServerUnavailable, from_triton
from .request import Parameters


@dataclass(frozen=True)
class Tls:
    """PEM files; None for `root_certificates` trusts the system's. The other two together are for servers that ask."""

    root_certificates: str | Path | None = None
    private_key: str | Path | None = None
    certificate_chain: str | Path | None = None


class Transport(Protocol):
    """Safe to use from several threads."""

    def infer(self, files: Sequence[bytes], parameters: Parameters, seconds: float) -> list[Detections]:
        """Detect in up to `MAX_BATCH` JPEG files, within `seconds`."""

    def close(self) -> None:
        """Close the connection."""


def channel_arguments(server: Endpoint, round_robin: bool) -> list[tuple[str, Any]]:
    """gRPC channel options: any message size, quick reconnection, the load balancing policy, no proxy to loopback."""
    arguments: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2000),  # the default of two minutes outlasts any restart
    ]
    if server.is_loopback:  # gRPC would send even 127.0.0.1 through the environment's http_proxy
        arguments.append(("grpc.enable_http_proxy", 0))
    if round_robin:
        arguments.append(("grpc.lb_policy_name", "round_robin"))
    return arguments


def grpc_options(url: str, tls: Tls | None = None, round_robin: bool = False) -> dict[str, Any]:
    """Keyword arguments of tritonclient's gRPC clients, blocking and asyncio.

    Raises:
        ClientError: `url` is no address, or a file of `tls` is missing.
    """
    server = endpoint.parse(url)
    options: dict[str, Any] = {"url": server.target, "channel_args": channel_arguments(server, round_robin)}
    if server.tls and tls is None:
        tls = Tls()
    if tls is not None:
        check_files(tls)
        options["ssl"] = True
        for name in ("root_certificates", "private_key", "certificate_chain"):
            path = getattr(tls, name)
            options[name] = None if path is None else str(path)
    return options


def check_files(tls: Tls) -> None:
    """Refuse files that are not there, which gRPC would report as something else, and half a pair, at which it aborts.

    Raises:
        ClientError: names the missing file.
    """
    if (tls.private_key is None) != (tls.certificate_chain is None):
        raise ClientError(
            "private_key and certificate_chain belong together, got one of them; name a file that holds both twice"
        )
    for name, path in dataclasses.asdict(tls).items():
        if path is not None and not Path(path).is_file():
            raise ClientError(f"{name}: there is no file {path}")


def key_headers(api_key: str | None) -> dict[str, str]:
    """Headers, or gRPC metadata, for a proxy that asks for a key."""
    return {} if api_key is None else {"api-key": api_key}


def grpc_call(
    model: str, files: Sequence[bytes], parameters: Parameters, seconds: float, api_key: str | None = None
) -> dict[str, Any]:
    """Keyword arguments of tritonclient's ``infer``, blocking and asyncio."""
    inputs, outputs = request.tensors(triton_grpc, files, parameters)
    return {
        "model_name": model,
        "inputs": inputs,
        "outputs": outputs,
        "parameters": parameters.to_triton(),
        "priority": parameters.priority,
        "client_timeout": seconds,
        "timeout": request.queue_timeout_us(seconds),
        "headers": key_headers(api_key),
    }


class GrpcTransport:
    """Over gRPC; one connection for all threads."""

    def __init__(
        self, url: str, model: str, tls: Tls | None = None, round_robin: bool = False, api_key: str | None = None
    ) -> None:
        self._url, self._model, self._api_key = url, model, api_key
        self._client = triton_grpc.InferenceServerClient(**grpc_options(url, tls, round_robin))

    def infer(self, files: Sequence[bytes], parameters: Parameters, seconds: float) -> list[Detections]:
        try:
            result = self._client.infer(**grpc_call(self._model, files, parameters, seconds, self._api_key))
        except InferenceServerException as error:
            raise from_triton(error, self._url) from error
        with request.reading(self._url):
            return request.detections(result, files, parameters)

    def close(self) -> None:
        self._client.close()


class HttpTransport:
    """Over HTTP with Triton's binary extension; one kept connection per thread.

    tritonclient makes and reads the bodies. Its own HTTP client belongs to one thread, ends noisily with it and
    has no deadline per request.
    """

    def __init__(self, url: str, model: str, tls: Tls | None = None, api_key: str | None = None) -> None:
        from tritonclient import http as triton_http  # brings gevent along

        self._triton = triton_http
        self._url, self._model, self._headers = url, model, key_headers(api_key)
        server = endpoint.parse(url)
        self._server, self._proxy = server.target, endpoint.proxy_for(server)
        if server.tls and tls is None:
            tls = Tls()
        self._context: ssl.SSLContext | None = None
        if tls is not None:
            check_files(tls)
            try:
                self._context = ssl.create_default_context(cafile=tls.root_certificates)
                if tls.certificate_chain is not None:
                    self._context.load_cert_chain(tls.certificate_chain, tls.private_key)
            except OSError as error:
                raise ClientError(f"{tls} cannot be used, PEM files are expected: {error}") from error
        # A proxy wants the whole address where it does not tunnel.
        in_clear = self._proxy is not None and self._context is None
        self._path = f"{f'http://{server.target}' if in_clear else ''}/v2/models/{model}/infer"
        self._local = threading.local()

    def infer(self, files: Sequence[bytes], parameters: Parameters, seconds: float) -> list[Detections]:
        inputs, outputs = request.tensors(self._triton, files, parameters)
        body, json_length = self._triton.InferenceServerClient.generate_request_body(
            inputs,
            outputs,
            priority=parameters.priority,
            timeout=request.queue_timeout_us(seconds),
            parameters=parameters.to_triton(),
        )
        end = time.monotonic() + seconds
        connection = self._connection(seconds)
        try:
            if connection.sock is None:
                connection.connect()
            headers = {"Inference-Header-Content-Length": str(json_length), **self._headers}
            with _cut_at(end, connection.sock):
                connection.request("POST", self._path, body, headers)
                response = connection.getresponse()
                answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._forget(connection)
            if isinstance(error, TimeoutError) or time.monotonic() >= end:
                raise DeadlineExceeded(f"{self._url}: no answer within the deadline") from error
            reason = getattr(error, "strerror", None) or repr(error)
            raise ServerUnavailable(f"{self._url}: {reason}") from error
        if response.status != 200:
            raise from_triton(InferenceServerException(_reason(answer), str(response.status)), self._url)
        with request.reading(self._url):
            length = response.headers["Inference-Header-Content-Length"]
            if length is None:
                raise ValueError(f"{len(answer)} bytes of {response.headers['Content-Type'] or 'no type'}")
            result = self._triton.InferenceServerClient.parse_response_body(answer, header_length=int(length))
            return request.detections(result, files, parameters)

    def _connection(self, seconds: float) -> http.client.HTTPConnection:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            address = self._proxy or (self._server, None)
            if self._context is None:
                connection = http.client.HTTPConnection(*address)
            else:
                connection = http.client.HTTPSConnection(*address, context=self._context)
                if self._proxy is not None:
                    connection.set_tunnel(self._server)
            self._local.connection = connection
        connection.timeout = seconds  # for connecting
        if connection.sock is not None:
            connection.sock.settimeout(seconds)
        return connection

    def _forget(self, connection: http.client.HTTPConnection) -> None:
        connection.close()
        self._local.connection = None

    def close(self) -> None:
        self._local = threading.local()  # a connection closes with the last reference to it


@contextlib.contextmanager
def _cut_at(end: float, sock: socket.socket) -> Iterator[None]:
    """End what `sock` sends and receives at `end`: its own time-out begins anew with every byte that comes.

    Raises:
        TimeoutError: `end` has come; to a reader the end of the connection can look like that of an answer.
    """
    timer = threading.Timer(end - time.monotonic(), _shut, (sock,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
    if time.monotonic() >= end:
        raise TimeoutError


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # a TLS socket's own takes the encryption away first, under the reader's hands
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _reason(body: bytes) -> str:
    """The error of an HTTP answer, which is JSON when it comes from Triton and anything from a proxy."""
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace").strip() or "no reason given"
