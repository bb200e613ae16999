"""The gateway's side towards Triton: several servers in turn, a deadline for everything that one request takes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

from tritonclient.grpc import aio as triton_grpc
from tritonclient.utils import InferenceServerException

from nudenet_client import (
    MAX_BATCH,
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


class Servers:
    """Triton servers at `urls`, asked in turn; one that is unavailable hands over to the next."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._clients = [AsyncClient(url, retries=0) for url in urls]
        self._probes = [triton_grpc.InferenceServerClient(**grpc_options(url)) for url in urls]
        self._turns = itertools.count()

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
        first = next(self._turns)
        for i in range(len(self._clients)):
            client = self._clients[(first + i) % len(self._clients)]
            try:
                return await client.detect_batch(files, parameters, deadline=deadline.left)
            except ServerUnavailable:
                continue
            except RequestRefused as error:
                raise Refused(400, "invalid_request", str(error)) from error
            except DeadlineExceeded as error:
                raise Refused(504, "deadline_exceeded", "no answer within the deadline") from error
            except ClientError as error:
                raise Refused(502, "server_failed", "the server failed on this request") from error
        raise Refused(503, "unavailable", "no server has room for this request; try again", _RETRY_AFTER)

    async def is_ready(self) -> bool:
        """Whether one of them is."""
        for probe in self._probes:
            try:
                if await probe.is_server_ready(client_timeout=_READY_SECONDS):
                    return True
            except InferenceServerException:
                continue
        return False

    async def close(self) -> None:
        """Close all connections."""
        for one in (*self._clients, *self._probes):
            await one.close()
