"""The asyncio client."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from types import TracebackType

from tritonclient.grpc import aio as triton_grpc
from tritonclient.utils import InferenceServerException

from . import request
from .canvas import groups
from .client import DEFAULTS, check_batch_size, check_settings, encode
from .detections import Detections
from .errors import ClientError, PictureError, RequestRefused, ServerUnavailable, from_triton
from .pictures import Picture, to_jpeg
from .request import MAX_BATCH, MODEL, OnError, Parameters
from .retries import Attempts
from .transport import Tls, grpc_call, grpc_options


class AsyncClient:
    """`Client` for asyncio, over gRPC: the same arguments, methods, answers and errors. One event loop each."""

    def __init__(
        self,
        url: str = "127.0.0.1:8001",
        *,
        model: str = MODEL,
        deadline: float = 30.0,
        retries: int = 4,
        concurrency: int = 4,
        tls: Tls | None = None,
        round_robin: bool = False,
        api_key: str | None = None,
    ) -> None:
        check_settings(deadline, retries, concurrency)
        self._url, self._model, self._api_key = url, model, api_key
        self._deadline, self._retries, self._concurrency = deadline, retries, concurrency
        self._client = triton_grpc.InferenceServerClient(**grpc_options(url, tls, round_robin))

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    async def detect(self, picture: Picture, parameters: Parameters = DEFAULTS) -> Detections:
        """Detect in one picture; see `Client.detect`."""
        (answer,) = await self._request([await asyncio.to_thread(to_jpeg, picture)], parameters)
        if answer.error is not None:
            raise PictureError(answer.error)
        return answer

    async def detect_many(
        self,
        pictures: Iterable[Picture],
        parameters: Parameters = DEFAULTS,
        *,
        batch_size: int = MAX_BATCH,
        on_error: OnError = "fail",
    ) -> AsyncIterator[Detections]:
        """Detect in any number of pictures; see `Client.detect_many`."""
        check_batch_size(batch_size)
        numbered = iter(pictures)
        pending: deque[asyncio.Task[list[Detections]]] = deque()
        done = 0
        try:
            while True:
                while len(pending) < self._concurrency and (batch := list(itertools.islice(numbered, batch_size))):
                    pending.append(asyncio.create_task(self._batch(batch, parameters, on_error)))
                if not pending:
                    return
                for answer in await pending.popleft():
                    if answer.error is not None and on_error == "fail":
                        raise PictureError(answer.error, done)
                    yield answer
                    done += 1
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def _batch(self, pictures: Sequence[Picture], parameters: Parameters, on_error: OnError) -> list[Detections]:
        files, answers = await asyncio.to_thread(encode, pictures, parameters)
        for group in groups(files):
            try:
                found = await self._request([files[i] for i in group], parameters)
            except (RequestRefused, ServerUnavailable):  # the next request would fare no better
                raise
            except ClientError as error:
                if on_error == "fail":
                    raise
                found = [parameters.failed(str(error))] * len(group)
            answers |= dict(zip(group, found))
        return [answers[i] for i in range(len(pictures))]

    async def detect_batch(
        self, files: Sequence[bytes], parameters: Parameters = DEFAULTS, *, deadline: float | None = None
    ) -> list[Detections]:
        """One request with up to `MAX_BATCH` JPEG files; the answers of refused pictures have their `error` set.

        Args:
            files: JPEG files.
            parameters: for all of them.
            deadline: seconds, tries included; default: the client's.

        Raises:
            ClientError: the request failed as a whole, see the family.
        """
        check_batch_size(len(files))
        return await self._request(files, parameters, deadline)

    async def _request(
        self, files: Sequence[bytes], parameters: Parameters, deadline: float | None = None
    ) -> list[Detections]:
        attempts = Attempts(self._deadline if deadline is None else deadline, self._retries)
        while True:
            try:
                result = await self._client.infer(
                    **grpc_call(self._model, files, parameters, attempts.left, self._api_key)
                )
                with request.reading(self._url):
                    return request.detections(result, files, parameters)
            except InferenceServerException as error:
                failure = from_triton(error, self._url)
                pause = attempts.pause() if isinstance(failure, ServerUnavailable) else None
                if pause is None:
                    raise failure from error
            await asyncio.sleep(pause)
