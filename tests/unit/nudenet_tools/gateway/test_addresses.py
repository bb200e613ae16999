"""A name stands for all its addresses, which come and go."""

from __future__ import annotations

import asyncio
import socket

import pytest

from helpers.scripted_triton import scripted_triton
from nudenet_client import Parameters
from nudenet_tools.gateway import addresses
from nudenet_tools.gateway.detector import Deadline, Servers
from nudenet_tools.gateway.errors import Refused

JPEG = b"\xff\xd8\xffpicture7"


@pytest.fixture
def names(monkeypatch):
    """The name service: addresses by name, to be changed while it is asked."""
    known: dict[str, list[str]] = {}

    async def getaddrinfo(loop, host, port, **options):
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        families = [(socket.AF_INET6 if ":" in place else socket.AF_INET, place) for place in known[host]]
        return [(family, socket.SOCK_STREAM, 6, "", (place, port)) for family, place in families]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    return known


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("triton:8001", True),
        ("nudenet-servers.nudenet.svc.cluster.local:8001", True),
        ("127.0.0.1:8001", False),
        ("[::1]:8001", False),
        ("dns:///triton:8001", False),
        ("ipv4:10.0.0.1:8001,10.0.0.2:8001", False),
        ("unix:/run/triton", False),
        ("triton", False),
    ],
)
def test_only_names_are_looked_up(url, expected):
    assert addresses.is_name(url) is expected


def test_lookup_prefers_ipv4_and_leaves_out_what_is_unknown(names):
    names |= {"both": ["::1", "10.0.0.1", "10.0.0.2"], "new": ["fd00::1"]}
    urls = ["both:8001", "new:9001", "unknown:8001", "10.0.0.2:8001", "127.0.0.1:7"]
    found = asyncio.run(addresses.lookup(urls))
    assert found == ("10.0.0.1:8001", "10.0.0.2:8001", "[fd00::1]:9001", "127.0.0.1:7")


def test_servers_join_and_leave_with_their_name(names, monkeypatch):
    monkeypatch.setattr(addresses, "LOOKUP_SECONDS", 0.01)

    async def until(servers, tritons, expected):
        """Ask until exactly the `expected` servers got the last four requests."""
        for _ in range(1000):
            before = [len(triton.requests) for triton in tritons]
            for _ in range(4):
                await servers.detect([JPEG], Parameters(), Deadline(30))
            got = [len(triton.requests) > count for triton, count in zip(tritons, before, strict=True)]
            if got == expected:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(got)

    async def run(tritons):
        ports = [triton.url.rpartition(":")[2] for triton in tritons]
        names["one"] = ["127.0.0.1"]
        servers = Servers([f"one:{ports[0]}", f"two:{ports[1]}"], deadline=0.01)
        await servers.open()
        try:
            await until(servers, tritons, [True, False])
            names["two"] = ["127.0.0.1"]
            await until(servers, tritons, [True, True])
            del names["one"]
            await until(servers, tritons, [False, True])
            names.clear()  # the name service is away: the last known server stays
            await asyncio.sleep(0.1)
            await until(servers, tritons, [False, True])
        finally:
            await servers.close()

    with scripted_triton(lambda number, context: None) as one, scripted_triton(lambda number, context: None) as two:
        asyncio.run(run([one, two]))


def test_a_name_without_a_server_is_unavailable(names):
    async def run():
        servers = Servers(["unknown:8001"], deadline=1)
        await servers.open()
        try:
            assert not await servers.is_ready()
            await servers.detect([JPEG], Parameters(), Deadline(30))
        finally:
            await servers.close()

    with pytest.raises(Refused) as caught:
        asyncio.run(run())
    assert caught.value.status == 503
