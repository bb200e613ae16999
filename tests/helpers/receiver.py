"""A receiver of webhooks that checks signatures by itself and answers as a test says."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()


def signature(secret: str, name: str, timestamp: str, body: bytes) -> str:
    """As the standard defines it, from nothing but the standard library."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.new(key, f"{name}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


class Receiver:
    """`attempts` are all (id, body, status answered); `received` the bodies under each id that was accepted."""

    def __init__(self, answer: Callable[[int], int | None]) -> None:
        self.answer, self.url = answer, ""
        self.attempts: list[tuple[str, bytes, int | None]] = []
        self.received: dict[str, set[bytes]] = {}
        self.headers: list[dict[str, str]] = []
        self.problems: list[str] = []
        self.changed = threading.Condition()

    def has_attempts(self, count: int) -> bool:
        return len(self.attempts) >= count

    def wait_for(self, condition: Callable[[], bool], seconds: float = 60.0) -> bool:
        with self.changed:
            return self.changed.wait_for(condition, seconds)


@contextlib.contextmanager
def receiver(
    answer: Callable[[int], int | None] = lambda number: 204, context: ssl.SSLContext | None = None
) -> Iterator[Receiver]:
    """Listens on 127.0.0.1. `answer` maps an attempt's number to a status; None closes the connection."""
    state = Receiver(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            name, timestamp = self.headers["webhook-id"], self.headers["webhook-timestamp"]
            with state.changed:
                if signature(SECRET, name, timestamp, body) not in self.headers["webhook-signature"].split():
                    state.problems.append(f"{name}: wrong signature")
                status = state.answer(len(state.attempts))
                state.attempts.append((name, body, status))
                state.headers.append(dict(self.headers))
                if status is not None and status < 300:
                    state.received.setdefault(name, set()).add(body)
                state.changed.notify_all()
            if status is None:
                self.close_connection = True
                return
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "/elsewhere")
            if status == 429:
                self.send_header("Retry-After", "7")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        state.url = f"{'http' if context is None else 'https'}://localhost:{server.server_port}/hook"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
