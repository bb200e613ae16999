"""The exceptions of the client; all are `ClientError`."""

from __future__ import annotations

from tritonclient.utils import InferenceServerException


class ClientError(RuntimeError):
    """A call failed; as this very class, the server failed inside. The message is for people."""


class ServerUnavailable(ClientError):
    """Nobody answers at the address, the server is not ready, or its queue is full. Worth another try."""


class DeadlineExceeded(ClientError):
    """No answer within the deadline."""


class RequestRefused(ClientError):
    """The server refused the request as a whole: a parameter out of range, an unknown label or model."""


class AccessRefused(RequestRefused):
    """The server, or the proxy before it, refuses whoever asks: the key is missing or wrong."""


class PictureError(ClientError):
    """One picture was refused, here or by the server.

    Attributes:
        index: its place among the pictures of the call, from 0.
        reason: what is wrong with it.
    """

    def __init__(self, reason: str, index: int = 0) -> None:
        super().__init__(f"picture {index}: {reason}")
        self.reason = reason
        self.index = index


_BY_STATUS: dict[str, type[ClientError]] = {
    # gRPC codes and HTTP statuses as tritonclient spells them
    "StatusCode.UNAVAILABLE": ServerUnavailable,
    "502": ServerUnavailable,  # of a proxy whose server is gone
    "503": ServerUnavailable,
    "StatusCode.DEADLINE_EXCEEDED": DeadlineExceeded,
    "504": DeadlineExceeded,
    "StatusCode.INVALID_ARGUMENT": RequestRefused,
    "StatusCode.NOT_FOUND": RequestRefused,
    "400": RequestRefused,
    "404": RequestRefused,
    "StatusCode.UNAUTHENTICATED": AccessRefused,
    "StatusCode.PERMISSION_DENIED": AccessRefused,
    "401": AccessRefused,
    "403": AccessRefused,
}


def from_triton(error: InferenceServerException, url: str) -> ClientError:
    """The exception of this family for one of tritonclient's; the message names the server."""
    kind = _BY_STATUS.get(error.status() or "", ClientError)
    message = error.message() or "no reason given"
    if "is not healthy" in message:  # INTERNAL to Triton: a Python process died; supervision replaces the server
        kind = ServerUnavailable
    if kind is RequestRefused:  # about the request, not about the server
        return kind(message)
    return kind(f"{url}: {message}")
