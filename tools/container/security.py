"""What a server lets others do: closed interfaces by default, TLS for what other machines reach."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"
KEY_HEADER = "admin-key"
# For nobody: clients that map memory here could read and write that of the Python processes.
SHARED_MEMORY = "shared-memory"
# Each reads or writes settings and files here; clients of a moderation service do not need them.
CLOSED = ("trace", "logging")
# Listing models and reading statistics is harmless on loopback; loading is off anyway (model control mode none).
CLOSED_WHEN_EXPOSED = (*CLOSED, "model-repository", "model-config", "statistics")


@dataclass(frozen=True)
class Exposure:
    """What other machines reach. HTTP and metrics stay on loopback unless `private`: Triton has no TLS for them.

    Args:
        address: to listen on, e.g. 0.0.0.0.
        certificate, key: PEM files of the server; None in a private network, where a proxy encrypts.
        client_ca: PEM file; clients need a certificate that it signed. None: any client is served.
        private: HTTP and metrics listen on `address`, too: the network is a container's own.
    """

    address: str
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    private: bool = False


def new_key() -> str:
    """A key that cannot be guessed, for one run."""
    return secrets.token_urlsafe(24)


def arguments(admin_key: str, exposure: Exposure | None) -> list[str]:
    """tritonserver's options for addresses, encryption and closed interfaces.

    Args:
        admin_key: opens the closed interfaces, sent as the header `KEY_HEADER` (gRPC: metadata
            ``triton-grpc-protocol-admin-key``). Client shared memory stays closed: its key is told to nobody.
        exposure: None keeps everything on loopback.
    """
    inside = exposure.address if exposure and exposure.private else LOOPBACK
    options = [
        f"--http-address={inside}",
        f"--metrics-address={inside}",
        f"--grpc-address={exposure.address if exposure else LOOPBACK}",
        "--model-control-mode=none",
    ]
    closed = ",".join(CLOSED_WHEN_EXPOSED if exposure else CLOSED)
    for interfaces, key in ((closed, admin_key), (SHARED_MEMORY, new_key())):
        options += [
            f"--http-restricted-api={interfaces}:{KEY_HEADER}={key}",
            f"--grpc-restricted-protocol={interfaces}:{KEY_HEADER}={key}",
        ]
    if exposure and exposure.certificate:
        options += [
            "--grpc-use-ssl=true",
            f"--grpc-server-cert={exposure.certificate}",
            f"--grpc-server-key={exposure.key}",
        ]
        if exposure.client_ca:
            options += ["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={exposure.client_ca}"]
    return options
