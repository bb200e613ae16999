"""What a server lets others do: closed interfaces by default, TLS for what is exposed."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"
KEY_HEADER = "admin-key"
# Interfaces that clients of a moderation service do not need: each reads or writes memory, files or settings here.
# Both front ends ask for the key. model-repository joins them on an exposed server: listing models is harmless
# on loopback, and loading is off anyway (model control mode none).
CLOSED = ("shared-memory", "trace", "logging")
CLOSED_WHEN_EXPOSED = (*CLOSED, "model-repository", "model-config", "statistics")


@dataclass(frozen=True)
class Exposure:
    """gRPC for other machines, always encrypted. HTTP and metrics stay on loopback: Triton has no TLS for them.

    Args:
        address: to listen on, e.g. 0.0.0.0.
        certificate, key: PEM files of the server.
        client_ca: PEM file; clients need a certificate that it signed. None: any client is served.
    """

    address: str
    certificate: Path
    key: Path
    client_ca: Path | None = None


def new_key() -> str:
    """A key that cannot be guessed, for one run."""
    return secrets.token_urlsafe(24)


def arguments(admin_key: str, exposure: Exposure | None) -> list[str]:
    """tritonserver's options for addresses, encryption and closed interfaces.

    Args:
        admin_key: opens the closed interfaces, sent as the header `KEY_HEADER` (gRPC: metadata
            ``triton-grpc-protocol-admin-key``).
        exposure: None keeps everything on loopback.
    """
    closed = ",".join(CLOSED_WHEN_EXPOSED if exposure else CLOSED)
    options = [
        f"--http-address={LOOPBACK}",
        f"--metrics-address={LOOPBACK}",
        f"--grpc-address={exposure.address if exposure else LOOPBACK}",
        "--model-control-mode=none",
        f"--http-restricted-api={closed}:{KEY_HEADER}={admin_key}",
        f"--grpc-restricted-protocol={closed}:{KEY_HEADER}={admin_key}",
    ]
    if exposure:
        options += [
            "--grpc-use-ssl=true",
            f"--grpc-server-cert={exposure.certificate}",
            f"--grpc-server-key={exposure.key}",
        ]
        if exposure.client_ca:
            options += ["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={exposure.client_ca}"]
    return options
