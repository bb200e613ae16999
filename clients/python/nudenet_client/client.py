"""The blocking client."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Literal

from .canvas import groups
from .detections import Detections
from .errors import ClientError, PictureError, RequestRefused, ServerUnavailable
from .pictures import Picture, to_jpeg
from .request import MAX_BATCH, MODEL, OnError, Parameters
from .retries import Attempts
from .transport import GrpcTransport, HttpTransport, Tls, Transport

DEFAULTS = Parameters()


class Client:
    """Calls the ``nudenet`` ensemble. Safe to share between threads; create it after a fork, not before.

    Args:
        url: host and port, e.g. ``127.0.0.1:8001``.
        model: the ensemble's name.
        protocol: ``grpc``, or ``http`` with the port of Triton's HTTP front end.
        deadline: seconds a request may take, its retries included.
        retries: further tries, with growing pauses, while the server is unavailable. Nothing else is tried again.
        concurrency: requests in flight at most, in `detect_many`.
        tls: for encrypted connections.
        round_robin: over all addresses that the host name has (gRPC), instead of the first one only.
        api_key: for a proxy that asks for one, sent as ``api-key``; use `tls` with it.
    """

    def __init__(
        self,
        url: str = "127.0.0.1:8001",
        *,
        model: str = MODEL,
        protocol: Literal["grpc", "http"] = "grpc",
        deadline: float = 30.0,
        retries: int = 4,
        concurrency: int = 4,
        tls: Tls | None = None,
        round_robin: bool = False,
        api_key: str | None = None,
    ) -> None:
        check_settings(deadline, retries, concurrency)
        self._deadline, self._retries, self._concurrency = deadline, retries, concurrency
        self._transport: Transport = (
            HttpTransport(url, model, tls, api_key)
            if protocol == "http"
            else GrpcTransport(url, model, tls, round_robin, api_key)
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def detect(self, picture: Picture, parameters: Parameters = DEFAULTS) -> Detections:
        """Detect in one picture.

        Raises:
            PictureError: the picture cannot be read or decoded.
            ClientError: the request failed, see the family.
        """
        (answer,) = self._request([to_jpeg(picture)], parameters)
        if answer.error is not None:
            raise PictureError(answer.error)
        return answer

    def detect_many(
        self,
        pictures: Iterable[Picture],
        parameters: Parameters = DEFAULTS,
        *,
        batch_size: int = MAX_BATCH,
        on_error: OnError = "fail",
    ) -> Iterator[Detections]:
        """Detect in any number of pictures, several requests in flight; answers come in order, as they are there.

        Args:
            pictures: read as they are needed, `batch_size` x `concurrency` ahead at most.
            parameters: for all of them.
            batch_size: most pictures a request, 1 to 8; what has another shape goes in a request of its own.
            on_error: ``fail`` raises at the first refused picture; ``report`` goes on and says why in its `error`,
                also where a whole request failed while the server was there.

        Raises:
            PictureError: with ``fail``; `index` is the picture's place.
            ClientError: the request failed, see the family.
        """
        check_batch_size(batch_size)
        numbered = iter(pictures)
        pending: deque[Future[list[Detections]]] = deque()
        done = 0
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="nudenet-client")
        try:
            while True:
                while len(pending) < self._concurrency and (batch := list(itertools.islice(numbered, batch_size))):
                    pending.append(pool.submit(self._batch, batch, parameters, on_error))
                if not pending:
                    return
                for answer in pending.popleft().result():
                    if answer.error is not None and on_error == "fail":
                        raise PictureError(answer.error, done)
                    yield answer
                    done += 1
        finally:
            pool.shutdown(cancel_futures=True)

    def _batch(self, pictures: Sequence[Picture], parameters: Parameters, on_error: OnError) -> list[Detections]:
        files, answers = encode(pictures, parameters)
        for group in groups(files):
            try:
                found = self._request([files[i] for i in group], parameters)
            except (RequestRefused, ServerUnavailable):  # the next request would fare no better
                raise
            except ClientError as error:
                if on_error == "fail":
                    raise
                found = [parameters.failed(str(error))] * len(group)
            answers |= dict(zip(group, found))
        return [answers[i] for i in range(len(pictures))]

    def _request(self, files: Sequence[bytes], parameters: Parameters) -> list[Detections]:
        attempts = Attempts(self._deadline, self._retries)
        while True:
            try:
                return self._transport.infer(files, parameters, attempts.left)
            except ServerUnavailable:
                pause = attempts.pause()
                if pause is None:
                    raise
            time.sleep(pause)


def encode(pictures: Sequence[Picture], parameters: Parameters) -> tuple[dict[int, bytes], dict[int, Detections]]:
    """JPEG files of the readable pictures, and failures of the others, by place in the batch."""
    files: dict[int, bytes] = {}
    failed: dict[int, Detections] = {}
    for i, picture in enumerate(pictures):
        try:
            files[i] = to_jpeg(picture)
        except PictureError as error:
            failed[i] = parameters.failed(error.reason)
    return files, failed


def check_settings(deadline: float, retries: int, concurrency: int) -> None:
    """Refuse settings that cannot work.

    Raises:
        ValueError: names the setting and what it accepts.
    """
    if not deadline > 0:
        raise ValueError(f"deadline must be above 0 seconds, got {deadline}")
    if retries < 0:
        raise ValueError(f"retries must be 0 or more, got {retries}")
    if concurrency < 1:
        raise ValueError(f"concurrency must be 1 or more, got {concurrency}")


def check_batch_size(batch_size: int) -> None:
    """Refuse a batch size that the server would.

    Raises:
        ValueError: not within 1..`MAX_BATCH`.
    """
    if not 1 <= batch_size <= MAX_BATCH:
        raise ValueError(f"batch_size must be in 1..{MAX_BATCH}, got {batch_size}")
