"""One request over gRPC or HTTP. Errors leave as the client's own; nothing is tried twice here."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tritonclient import grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from . import request
from .detections import Detections
from .errors import ClientError, DeadlineExceeded, ServerUnavailable, from_triton
from .request import Parameters


@dataclass(frozen=True)
class Tls:
    """PEM files; None for `root_certificates` trusts the system's. The other two are for servers that ask."""

    root_certificates: str | Path | None = None
    private_key: str | Path | None = None
    certificate_chain: str | Path | None = None


class Transport(Protocol):
    """Safe to use from several threads."""

    def infer(self, files: Sequence[bytes], parameters: Parameters, seconds: float) -> list[Detections]:
        """Detect in up to `MAX_BATCH` JPEG files, within `seconds`."""

    def close(self) -> None:
        """Close the connection."""


def channel_arguments(round_robin: bool) -> list[tuple[str, Any]]:
    """gRPC channel options: any message size, quick reconnection, and the load balancing policy."""
    arguments: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2000),  # the default of two minutes outlasts any restart
    ]
    if round_robin:
        arguments.append(("grpc.lb_policy_name", "round_robin"))
    return arguments


def grpc_options(tls: Tls | None, round_robin: bool) -> dict[str, Any]:
    """Keyword arguments of tritonclient's gRPC clients, blocking and asyncio."""
    options: dict[str, Any] = {"channel_args": channel_arguments(round_robin)}
    if tls is not None:
        options["ssl"] = True
        for name in ("root_certificates", "private_key", "certificate_chain"):
            path = getattr(tls, name)
            options[name] = None if path is None else str(path)
            if path is not None and not Path(path).is_file():
                raise ClientError(f"{name}: there is no file {path}")
    return options


def grpc_call(files: Sequence[bytes], parameters: Parameters, seconds: float) -> dict[str, Any]:
    """Keyword arguments of tritonclient's ``infer``, blocking and asyncio."""
    inputs, outputs = request.tensors(triton_grpc, files)
    return {
        "model_name": request.MODEL,
        "inputs": inputs,
        "outputs": outputs,
        "parameters": parameters.to_triton(),
        "priority": parameters.priority,
        "client_timeout": seconds,
        # Where the server allows it, a request whose caller has gone leaves the queue unserved.
        "timeout": int(seconds * 1e6),
    }


class GrpcTransport:
    """Over gRPC; one connection for all threads."""

    def __init__(self, url: str, tls: Tls | None = None, round_robin: bool = False) -> None:
        self._url = url
        self._client = triton_grpc.InferenceServerClient(url, **grpc_options(tls, round_robin))

    def infer(self, files: Sequence[bytes], parameters: Parameters, seconds: float) -> list[Detections]:
        try:
            result = self._client.infer(**grpc_call(files, parameters, seconds))
        except InferenceServerException as error:
            raise from_triton(error, self._url) from error
        return request.detections(result, files)

    def close(self) -> None:
        self._client.close()


class HttpTransport:
    """Over HTTP with Triton's binary extension. tritonclient's HTTP client belongs to one thread: one each."""

    def __init__(self, url: str, tls: Tls | None = None, deadline: float = 30.0) -> None:
        from tritonclient import http as triton_http

        self._module = triton_http
        self._url = url
        self._options: dict[str, Any] = {"connection_timeout": deadline, "network_timeout": deadline}
        if tls is not None:
            context = ssl.create_default_context(cafile=tls.root_certificates)
            if tls.certificate_chain is not None:
                context.load_cert_chain(tls.certificate_chain, tls.private_key)
            self._options |= {"ssl": True, "ssl_context_factory": lambda: context}
        self._local = threading.local()

    def infer(self, files: Sequence[bytes], parameters: Parameters, seconds: float) -> list[Detections]:
        client = getattr(self._local, "client", None)
        if client is None:
            client = self._local.client = self._module.InferenceServerClient(self._url, **self._options)
        inputs, outputs = request.tensors(self._module, files)
        try:
            result = client.infer(
                request.MODEL,
                inputs,
                outputs=outputs,
                parameters=parameters.to_triton(),
                priority=parameters.priority,
                timeout=int(seconds * 1e6),
            )
        except InferenceServerException as error:
            raise from_triton(error, self._url) from error
        except TimeoutError as error:
            raise DeadlineExceeded(f"{self._url}: no answer within the deadline") from error
        except OSError as error:
            raise ServerUnavailable(f"{self._url}: {error.strerror or error}") from error
        return request.detections(result, files)

    def close(self) -> None:
        self._local = threading.local()  # the connections close with their clients
