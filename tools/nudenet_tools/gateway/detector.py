"""The gateway's side towards Triton: several servers in turn, a deadline for everything that one request takes."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence

from tritonclient.grpc import aio as triton_grpc
from tritonclient.utils import InferenceServerException

from nudenet_client import (
    MAX_BATCH,
    AccessRefused,
    AsyncClient,
    ClientError,
    DeadlineExceeded,
    Detections,
    Parameters,
    RequestRefused,
    ServerUnavailable,
)
from nudenet_client.canvas import groups
from nudenet_client.transport import grpc_options
from nudenet_tools.gateway import addresses
from nudenet_tools.gateway.errors import Refused

_READY_SECONDS = 1.0
_RETRY_AFTER = 1.0  # seconds; a server that sheds is free again soon


class Deadline:
    """The time that one request has."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds.

        Raises:
            Refused: none is left.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise Refused(504, "deadline_exceeded", "no answer within the deadline")
        return left


class _Server:
    """One Triton server: a client, and a probe of its readiness."""

    def __init__(self, url: str) -> None:
        self.client = AsyncClient(url, retries=0)
        self.probe = triton_grpc.InferenceServerClient(**grpc_options(url))

    async def close(self) -> None:
        await self.client.close()
        await self.probe.close()


class Servers:
    """Triton servers at `urls`, asked in turn; one that is unavailable hands over to the next.

    A name stands for all its addresses. `open` before use, inside the event loop that will be used.

    Args:
        urls: ``HOST:PORT`` of gRPC.
        deadline: seconds after which no request is at work any more with a server that has left its name.
    """

    def __init__(self, urls: Sequence[str], deadline: float) -> None:
        self._urls, self._deadline = urls, deadline
        self._servers: dict[str, _Server] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._lookups: asyncio.Task[None] | None = None
        self._turns = itertools.count()

    async def open(self) -> None:
        """Connect, and follow the names from now on."""
        await self._follow()
        if any(addresses.is_name(url) for url in self._urls):
            self._lookups = asyncio.create_task(self._keep_following())

    async def _keep_following(self) -> None:
        while True:
            await asyncio.sleep(addresses.LOOKUP_SECONDS)
            await self._follow()

    async def _follow(self) -> None:
        found = await addresses.lookup(self._urls)
        if not found:  # the name service is away, or all servers are: keep asking where they were
            return
        for url in self._servers.keys() - set(found):
            task = asyncio.create_task(self._leave(self._servers.pop(url)))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        for url in found:
            if url not in self._servers:
                self._servers[url] = _Server(url)

    async def _leave(self, server: _Server) -> None:
        try:
            await asyncio.sleep(self._deadline)
        finally:
            await server.close()

    async def detect(self, files: Sequence[bytes], parameters: Parameters, deadline: Deadline) -> list[Detections]:
        """The answer for each JPEG file; refused ones have their `error` set.

        Raises:
            Refused: a parameter is wrong (400), all servers are unavailable (503), no time is left (504), or a server
                failed inside (502).
        """
        found: dict[int, Detections] = {}
        for group in groups(
            dict(enumerate(files))
        ):  # one shape a request: a picture's answer does not depend on its neighbours
            for start in range(0, len(group), MAX_BATCH):
                places = group[start : start + MAX_BATCH]
                answers = await self._batch([files[i] for i in places], parameters, deadline)
                found |= dict(zip(places, answers, strict=True))
        return [found[i] for i in range(len(files))]

    async def _batch(self, files: Sequence[bytes], parameters: Parameters, deadline: Deadline) -> list[Detections]:
        servers = list(self._servers.values())
        first = next(self._turns)
        for i in range(len(servers)):
            server = servers[(first + i) % len(servers)]
            try:
                return await server.client.detect_batch(files, parameters, deadline=deadline.left)
            except ServerUnavailable:
                continue
            except AccessRefused as error:  # the gateway itself, not its client
                raise Refused(502, "server_failed", "the server refuses the gateway") from error
            except RequestRefused as error:
                raise Refused(400, "invalid_request", str(error)) from error
            except DeadlineExceeded as error:
                raise Refused(504, "deadline_exceeded", "no answer within the deadline") from error
            except ClientError as error:
                raise Refused(502, "server_failed", "the server failed on this request") from error
        raise Refused(503, "unavailable", "no server has room for this request; try again", _RETRY_AFTER)

    async def is_ready(self) -> bool:
        """Whether one of them is."""
        for server in list(self._servers.values()):
            try:
                if await server.probe.is_server_ready(client_timeout=_READY_SECONDS):
                    return True
            except InferenceServerException:
                continue
        return False

    async def close(self) -> None:
        """Close all connections."""
        tasks = [*self._leaving, *([self._lookups] if self._lookups else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for server in self._servers.values():
            await server.close()
