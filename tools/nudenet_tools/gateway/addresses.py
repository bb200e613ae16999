"""The servers behind a name: all its addresses, looked up again and again, since containers and Pods come and go."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import urllib.parse
from collections.abc import Sequence

LOOKUP_SECONDS = 5.0


def is_name(url: str) -> bool:
    """Whether ``HOST:PORT`` has a name for a host; an address, or gRPC's own targets such as ``dns:///``, are none."""
    host, port = _split(url)
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return bool(host and port) and url.count(":") == 1
    return False


async def lookup(urls: Sequence[str]) -> tuple[str, ...]:
    """`urls` with each name replaced by its IPv4 addresses, or by its IPv6 addresses if it has no others.

    A name that is not known now is left out.
    """
    found: dict[str, None] = {}  # a set that keeps the order
    for url in urls:
        if is_name(url):
            found |= dict.fromkeys(await _addresses(*_split(url)))
        else:
            found[url] = None
    return tuple(found)


def _split(url: str) -> tuple[str, int]:
    try:
        parts = urllib.parse.urlsplit(f"//{url}")
        return parts.hostname or "", parts.port or 0
    except ValueError:
        return "", 0


async def _addresses(host: str, port: int) -> list[str]:
    try:
        entries = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    ipv4 = [f"{place[0]}:{port}" for family, _, _, _, place in entries if family == socket.AF_INET]
    return ipv4 or [f"[{place[0]}]:{port}" for family, _, _, _, place in entries if family == socket.AF_INET6]
