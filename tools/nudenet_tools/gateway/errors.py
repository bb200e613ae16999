"""What the gateway answers instead of a result."""

from __future__ import annotations

import math


class Refused(Exception):
    """A request that gets an HTTP error.

    Args:
        status: HTTP status.
        code: a word for programs.
        message: what came, what was expected, what to do.
        retry_after: seconds after which another try is worthwhile; None: it is not.
    """

    def __init__(self, status: int, code: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers = {} if retry_after is None else {"Retry-After": str(max(1, math.ceil(retry_after)))}
        if status == 401:
            self.headers["WWW-Authenticate"] = "Bearer"

    def body(self) -> dict[str, dict[str, str]]:
        """The JSON of the answer."""
        return {"error": {"code": self.code, "message": self.message}}
