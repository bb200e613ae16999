"""A server's address as people write it, and which proxy stands in front of it."""

from __future__ import annotations

import ipaddress
import re
import urllib.parse
import urllib.request
from dataclasses import dataclass

from .errors import ClientError

_SCHEMES = {"http": False, "grpc": False, "https": True, "grpcs": True}
_TLS_PORT = 443
_GRPC_TARGET = re.compile(r"(dns|ipv4|ipv6|unix|unix-abstract|xds):", re.ASCII)  # gRPC's own names go as they are


@dataclass(frozen=True)
class Endpoint:
    """Where a server listens.

    Attributes:
        target: ``host:port``, or another gRPC target such as ``dns:///host:port``.
        tls: whether the address asked for encryption (``https://``, ``grpcs://``).
    """

    target: str
    tls: bool = False

    @property
    def is_loopback(self) -> bool:
        """Whether the server runs on this machine, where no proxy can help."""
        if self.target.startswith("unix"):
            return True
        places = _GRPC_TARGET.sub("", self.target, count=1).rpartition("/")[2].split(",")
        return all(is_loopback(_host(place)) for place in places)


def parse(url: str) -> Endpoint:
    """Read ``host:port``, ``http://host:port/`` (also https, grpc, grpcs) or another target of gRPC.

    Raises:
        ClientError: no host, no usable port, or a path, query or password behind it.
    """
    if _GRPC_TARGET.match(url):
        return Endpoint(url)
    scheme, separator, place = url.rpartition("://")
    if separator and scheme.lower() not in _SCHEMES:
        raise ClientError(f"{url}: unknown scheme {scheme!r}; expected HOST:PORT, http:// or https://")
    tls = _SCHEMES.get(scheme.lower(), False)
    place = place.rstrip("/")
    try:
        parts = urllib.parse.urlsplit(f"//{place}")
        port = parts.port or (_TLS_PORT if tls else 0)
    except ValueError:
        port = 0
    if not port or not parts.hostname or any(sign in place for sign in "/?#@"):
        shown = re.sub("//.*@", "//", url)  # without a password
        raise ClientError(f"{shown}: expected HOST:PORT or http://HOST:PORT, without path, user or query")
    return Endpoint(place if parts.port else f"{place}:{port}", tls)


def proxy_for(endpoint: Endpoint) -> tuple[str, int] | None:
    """Host and port of the HTTP proxy that the environment asks for; None for this machine's own servers.

    The rules are urllib's: ``http_proxy`` or ``https_proxy``, and ``no_proxy`` for exceptions.

    Raises:
        ClientError: the environment names a proxy that cannot be used.
    """
    proxy = urllib.request.getproxies().get("https" if endpoint.tls else "http")
    if not proxy or endpoint.is_loopback or urllib.request.proxy_bypass(endpoint.target):
        return None
    parts = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    try:
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host = None
    if not host or parts.scheme != "http":
        raise ClientError("the environment's proxy must be http://HOST:PORT: see http_proxy and no_proxy")
    return host, port


def _host(place: str) -> str:
    return place[1:].partition("]")[0] if place.startswith("[") else place.rpartition(":")[0] or place


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
