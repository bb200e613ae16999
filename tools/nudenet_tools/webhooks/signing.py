"""Secrets of Standard Webhooks: ``whsec_`` and 24 to 64 random bytes as base64."""

from __future__ import annotations

import base64
import binascii
import datetime
import os
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "NUDENET_WEBHOOK_SECRET"
_PREFIX = "whsec_"
_SIZES = range(24, 65)  # bytes, as the standard says


class SecretError(ValueError):
    """There is no usable secret. The message never shows one."""


class Signer:
    """Signs with each of `secrets`, so that receivers can change from one to the next.

    Raises:
        SecretError: one of them is not as the standard says, or there is none.
    """

    def __init__(self, secrets: list[str]) -> None:
        from standardwebhooks import Webhook  # here, so that streams without webhooks do not need it

        if not secrets:
            raise SecretError("no secret in it")
        self._keys = [Webhook(_decoded(secret)) for secret in secrets]

    def headers(self, message_id: str, body: bytes, now: float) -> dict[str, str]:
        """The headers of one attempt at `now`, in seconds since 1970."""
        at = datetime.datetime.fromtimestamp(int(now), datetime.UTC)
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now)),
            "webhook-signature": " ".join(key.sign(message_id, at, body.decode()) for key in self._keys),
        }


def signer(file: Path | None, environment: Mapping[str, str] = os.environ) -> Signer:
    """A signer with the secrets of `file`, else of the environment variable, separated by white space.

    Raises:
        SecretError: there are none, or one is not as the standard says.
    """
    if file is None:
        if not environment.get(VARIABLE, "").strip():
            raise SecretError(f"webhooks are signed: put a secret into {VARIABLE} or a file (--webhook-secret-file)")
        text, where = environment[VARIABLE], VARIABLE
    else:
        where = str(file)
        try:
            text = file.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it must be ASCII"
            raise SecretError(f"{where}: {reason}") from None
    try:
        return Signer(text.split())
    except SecretError as error:
        raise SecretError(f"{where}: {error}") from None


def _decoded(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(_PREFIX) or len(key) not in _SIZES:
        raise SecretError(f"a secret must be {_PREFIX} and {_SIZES[0]} to {_SIZES[-1]} bytes as base64")
    return key
