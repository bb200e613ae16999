"""Pictures out of an HTTP request: a raw body, multipart, or base64 in JSON; everything bounded while it comes in."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from nudenet_steps.preprocess import encoding
from nudenet_steps.preprocess.jpeg import JpegError
from nudenet_tools.gateway.errors import Refused
from nudenet_tools.gateway.settings import Limits

_RAW = ("application/octet-stream", "application/x-www-form-urlencoded")  # the second is what curl says by default

_LONGEST_BOUNDARY = 70  # RFC 2046
_TAIL_BYTES = 1024  # holds the closing boundary, with line ends after it
_LONGEST_NAME = 100  # characters of a key in an error


class JsonPictures(BaseModel):
    """Either `image` or `images`."""

    model_config = ConfigDict(extra="forbid", strict=True)
    image: str | None = Field(None, description="One picture file as base64")
    images: list[str] | None = Field(None, description="Several of them")


@dataclass(frozen=True)
class Sent:
    """One picture as it came: its bytes, or why there are none."""

    name: str | None
    data: bytes
    error: str = ""


async def read(request: Request, limits: Limits, seconds: float) -> list[Sent]:
    """All pictures of a request, in order.

    Raises:
        Refused: over a limit (413), of an unknown type (415), malformed (400), or not here in time (408).
    """
    try:
        pictures = await asyncio.wait_for(_read(request, limits), seconds)
    except TimeoutError:
        raise Refused(408, "body_timeout", "the body did not come within the deadline") from None
    except ClientDisconnect:
        raise Refused(400, "disconnected", "the client went away") from None
    if not pictures:
        raise Refused(400, "no_picture", "no picture in the request")
    if len(pictures) > limits.pictures:
        raise _too_many(limits)
    return [
        Sent(one.name, b"", f"{len(one.data)} bytes, the limit is {limits.picture_bytes}")
        if len(one.data) > limits.picture_bytes
        else one
        for one in pictures
    ]


async def _read(request: Request, limits: Limits) -> list[Sent]:
    length = request.headers.get("content-length", "0").lstrip("0") or "0"
    # Longer numbers than that of the limit are not even read: int() has a limit of its own.
    if not length.isdecimal() or len(length) > len(str(limits.body_bytes)) or int(length) > limits.body_bytes:
        raise _too_large(limits)
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("identity", ""):
        raise Refused(415, "unsupported_media_type", "the body has a Content-Encoding; send it as it is")
    bounded = _Bounded(request, limits)
    kind = request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _multipart(Request(request.scope, bounded.receive), bounded, limits)
    body = await Request(request.scope, bounded.receive).body()
    if kind == "application/json":
        return _json(body, limits)
    if kind.startswith("image/") or kind in _RAW:
        return [Sent(None, body)] if body else []
    raise Refused(
        415, "unsupported_media_type", "send image/*, application/octet-stream, multipart/form-data or application/json"
    )


class _Bounded:
    """Counts the body while it comes, whatever Content-Length says, and keeps its last bytes."""

    def __init__(self, request: Request, limits: Limits) -> None:
        self._receive, self._limits, self._bytes = request.receive, limits, 0
        self.tail = b""

    async def receive(self) -> Any:
        message = await self._receive()
        body = message.get("body", b"")
        self._bytes += len(body)
        if self._bytes > self._limits.body_bytes:
            raise _too_large(self._limits)
        self.tail = (self.tail + body[-_TAIL_BYTES:])[-_TAIL_BYTES:]
        return message


async def _multipart(request: Request, bounded: _Bounded, limits: Limits) -> list[Sent]:
    _, options = parse_options_header(request.headers["content-type"])
    boundary = options.get(b"boundary", b"")
    if not 0 < len(boundary) <= _LONGEST_BOUNDARY:
        raise _malformed(f"its Content-Type must name a boundary of 1 to {_LONGEST_BOUNDARY} characters")
    try:
        form = await request.form(max_files=limits.pictures, max_fields=0, max_part_size=1024)
    except HTTPException as error:
        if error.detail.startswith("Too many files"):
            raise _too_many(limits) from error
        if error.detail.startswith("Too many fields"):
            raise _malformed("every part must be a file, with a filename in its Content-Disposition") from error
        raise _malformed(error.detail) from error
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(form.close)
        # A part that was cut off is left out by the parser, and would go unseen.
        if b"--" + boundary + b"--" not in bounded.tail:
            raise _malformed("it was cut off: its closing boundary is missing")
        parts = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
        return [Sent(part.filename or None, await part.read()) for part in parts]


def _json(body: bytes, limits: Limits) -> list[Sent]:
    try:
        given = JsonPictures.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:_LONGEST_NAME] or "the body"
        raise Refused(400, "invalid_json", f'{where}: {first["msg"]}; expected {{"image": BASE64}}') from error
    if (given.image is None) == (given.images is None):
        raise Refused(400, "invalid_json", 'expected either "image" or "images"')
    texts = [given.image] if given.image is not None else given.images or []
    if len(texts) > limits.pictures:
        raise _too_many(limits)
    return [_decoded(text, limits) for text in texts]


def _decoded(text: str, limits: Limits) -> Sent:
    data = encoding.decode(text.encode(errors="replace"), limits.picture_bytes)
    return Sent(None, b"", str(data)) if isinstance(data, JpegError) else Sent(None, data)


def _malformed(reason: str) -> Refused:
    return Refused(400, "invalid_multipart", f"multipart/form-data: {reason}")


def _too_large(limits: Limits) -> Refused:
    return Refused(413, "too_large", f"the body may have {limits.body_bytes} bytes; send fewer or smaller pictures")


def _too_many(limits: Limits) -> Refused:
    return Refused(413, "too_many_pictures", f"a request may have {limits.pictures} pictures")
