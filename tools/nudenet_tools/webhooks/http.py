"""One attempt to deliver a message by HTTP POST."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import urllib3

from .delivery import NotDelivered
from .outbox import Message
from .signing import Signer

_CONNECT, _READ = 5.0, 15.0  # seconds; the standard advises 15 to 30 for a receiver's answer
_LONGEST_PAUSE = 3600.0  # seconds of a Retry-After that are followed
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_UNICAST = ipaddress.ip_network("2000::/3")  # of IPv6, all that is public; elsewhere are ways to IPv4 of this network


class TargetError(ValueError):
    """A webhook's address cannot be used; the message says why."""


class Webhook:
    """Posts to one address. Redirects are not followed. No proxy is used.

    Args:
        allow_http: without encryption, too.
        allow_private: addresses that are not public, too: this machine, private networks, link-local ones.
        ca: PEM file of the certificates to trust; None for the system's.

    Raises:
        TargetError: the address cannot be used.
    """

    def __init__(
        self,
        url: str,
        signer: Signer,
        *,
        allow_http: bool = False,
        allow_private: bool = False,
        ca: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        try:
            parts = urllib.parse.urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise TargetError(f"the webhook's address is not a URL: {error}") from None
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise TargetError("the webhook's address must begin with https:// and a host")
        if parts.scheme == "http" and not allow_http:
            raise TargetError("the webhook's address must begin with https://, or pass --webhook-allow-http")
        if parts.username is not None or parts.password is not None or parts.fragment:
            raise TargetError("the webhook's address must have no user, password or fragment; messages are signed")
        self._tls = parts.scheme == "https"
        self._host, self._port = parts.hostname, port or (443 if self._tls else 80)
        self._authority = parts.netloc
        self._path = urllib.parse.quote(parts.path or "/", safe="/%:@!$&'()*+,;=~") + (
            f"?{parts.query}" if parts.query else ""
        )
        self._signer, self._allow_private, self._clock = signer, allow_private, clock
        self._context: ssl.SSLContext | None = None
        if self._tls:
            try:
                self._context = ssl.create_default_context(cafile=None if ca is None else str(ca))
            except (OSError, ssl.SSLError) as error:
                raise TargetError(f"{ca}: {error}") from error

    @property
    def label(self) -> str:
        """Where messages go, without path and query, which may hold a token."""
        return f"{'https' if self._tls else 'http'}://{self._authority}"

    def __call__(self, message: Message) -> None:
        """Deliver.

        Raises:
            NotDelivered: the receiver did not answer with 2xx.
        """
        headers = {
            "Host": self._authority,
            "Content-Type": "application/cloudevents+json; charset=utf-8",
            "User-Agent": "nudenet-stream",
            **self._signer.headers(message.id, message.body, self._clock()),
        }
        error: Exception | None = None
        for address in self._addresses():
            try:
                status, retry_after = self._post(address, message.body, headers)
            except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError) as caught:
                error = caught  # nothing was sent: the host may have another address
                continue
            except (urllib3.exceptions.HTTPError, OSError) as caught:
                raise NotDelivered(f"{self.label}: {caught}", all_wait=True) from caught
            if 200 <= status < 300:
                return
            note = "; redirects are not followed" if 300 <= status < 400 else ""
            # What speaks of this message lets the others pass; what speaks of the receiver does not.
            all_wait = status in (408, 429) or status >= 500
            raise NotDelivered(f"{self.label}: answered {status}{note}", retry_after, all_wait)
        raise NotDelivered(f"{self.label}: {error}", all_wait=True)

    def _post(self, address: str, body: bytes, headers: dict[str, str]) -> tuple[int, float | None]:
        """(status, seconds of Retry-After). The answer's body is not read."""
        timeout = urllib3.Timeout(connect=_CONNECT, read=_READ)
        pool: urllib3.HTTPConnectionPool
        if self._context is not None:
            # To the address that was checked, with the certificate of the name.
            pool = urllib3.HTTPSConnectionPool(
                address, self._port, timeout=timeout, ssl_context=self._context, server_hostname=self._host
            )
        else:
            pool = urllib3.HTTPConnectionPool(address, self._port, timeout=timeout)
        with pool:
            answer = pool.urlopen(
                "POST", self._path, body, headers, retries=False, redirect=False, preload_content=False
            )
            try:
                return answer.status, _seconds(answer.headers.get("Retry-After"))
            finally:
                answer.close()

    def _addresses(self) -> list[str]:
        """The host's addresses, looked up anew for each attempt: what is checked is what is connected to."""
        try:
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise NotDelivered(f"{self.label}: {error}", all_wait=True) from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in addresses:
            if not self._allow_private and not is_public(address):
                raise NotDelivered(
                    f"{self.label}: {address} is not a public address; pass --webhook-allow-private to deliver there",
                    all_wait=True,
                )
        return addresses


def is_public(text: str) -> bool:
    """Whether an IP address is reachable for everybody; also looks at IPv4 addresses inside IPv6 ones."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if address not in _UNICAST:
            return False
    return address.is_global and not address.is_multicast


def _seconds(text: str | None) -> float | None:
    """Seconds of a Retry-After; None where it is absent or a date."""
    return min(float(text), _LONGEST_PAUSE) if text is not None and text.isdecimal() and len(text) < 10 else None
