"""What the gateway accepts, and whom it asks."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path


@dataclass(frozen=True)
class Limits:
    """Of one request, and of one key."""

    body_bytes: int = 64_000_000
    pictures: int = 10  # in one request; as many as Misskey's own service takes
    picture_bytes: int = 20_000_000  # Triton's own limit for a JPEG
    pixels: int = 50_000_000  # of one picture that is converted, over all its frames
    frames: int = 64  # of one animation
    rate: float = 50.0  # requests a second of one key, or of one address without keys; in this process
    burst: int = 100
    in_flight: int = 64  # requests at work; more are refused

    @property
    def in_flight_of_client(self) -> int:
        """How many of them one key may hold, or one address without keys: slow bodies must not shut out the others."""
        return -(-self.in_flight * 3 // 4)


@dataclass(frozen=True)
class Settings:
    """How to run one gateway.

    Args:
        urls: HOST:PORT of gRPC of each Triton server; a name stands for all its addresses.
        deadline: seconds a request may take; clients may ask for less.
        policy: of ``/v1/moderate`` where the request names none.
        keys: file of API keys, see `keys.KeyFile`; None: no keys, for loopback only.
        proxies: networks whose ``X-Forwarded-For`` is believed.
        docs: serve ``/docs`` and ``/openapi.json``.
        host: address that it listens on.
        converters: child processes for pictures that are no JPEG.
        conversion_seconds, conversion_bytes: time and memory that one of them may take.
    """

    urls: tuple[str, ...] = ("127.0.0.1:8001",)
    deadline: float = 10.0
    policy: str = "standard"
    keys: Path | None = None
    proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    docs: bool = False
    host: str = "127.0.0.1"
    converters: int = 2
    conversion_seconds: float = 5.0
    conversion_bytes: int = 1_500_000_000
    limits: Limits = Limits()
