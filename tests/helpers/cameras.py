"""Network cameras for tests: MJPEG over HTTP, and RTSP with an MPEG transport stream over TCP."""

from __future__ import annotations

import itertools
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_TS_PACKET = 188
_SDP = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:track\r\n"

_Serve = Callable[[socketserver.StreamRequestHandler], None]


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A viewer that goes away is no error."""


@contextmanager
def _serving(serve: _Serve) -> Iterator[int]:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            serve(self)

    with _Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def _lines(handler: socketserver.StreamRequestHandler) -> list[str]:
    """The next request's head; empty when the viewer has gone."""
    lines: list[str] = []
    while line := handler.rfile.readline().strip():
        lines.append(line.decode())
    return lines


@contextmanager
def serving_http(content_type: str, part: bytes, parts: int, fps: float) -> Iterator[str]:
    """Sends `part` so many times a connection, then hangs up. Yields its http:// address."""

    def serve(handler: socketserver.StreamRequestHandler) -> None:
        _lines(handler)
        handler.wfile.write(f"HTTP/1.0 200 OK\r\nContent-Type: {content_type}\r\n\r\n".encode())
        for _ in range(parts):
            handler.wfile.write(part)
            time.sleep(1 / fps)

    with _serving(serve) as port:
        yield f"http://127.0.0.1:{port}/camera"


@contextmanager
def mjpeg_camera(picture: bytes, frames: int, fps: float) -> Iterator[str]:
    """A camera that shows `picture` `frames` times a connection."""
    part = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture) + picture + b"\r\n"
    with serving_http("multipart/x-mixed-replace;boundary=frame", part, frames, fps) as address:
        yield address


@contextmanager
def rtsp_camera(transport_stream: Path, seconds: float) -> Iterator[str]:
    """Plays a .ts file in `seconds`, then hangs up. Yields its rtsp:// address."""

    def serve(handler: socketserver.StreamRequestHandler) -> None:
        while request := _lines(handler):
            method = request[0].split()[0]
            fields = dict(line.split(": ", 1) for line in request[1:])
            answer, body = f"RTSP/1.0 200 OK\r\nCSeq: {fields['CSeq']}\r\nSession: 1\r\n", ""
            if method == "OPTIONS":
                answer += "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
            elif method == "DESCRIBE":
                body = _SDP
                answer += f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
            elif method == "SETUP":
                answer += "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
            handler.wfile.write((answer + "\r\n" + body).encode())
            if method == "PLAY":
                play(handler)
                return

    def play(handler: socketserver.StreamRequestHandler) -> None:
        data = transport_stream.read_bytes()
        payload = 7 * _TS_PACKET  # what fits an Ethernet frame
        pause = seconds * payload / len(data)
        for number, start in zip(itertools.count(), range(0, len(data), payload)):
            chunk = data[start : start + payload]
            header = struct.pack(">BBHII", 0x80, 33, number & 0xFFFF, int(number * pause * 90_000), 1)
            handler.wfile.write(struct.pack(">cBH", b"$", 0, len(header) + len(chunk)) + header + chunk)
            time.sleep(pause)

    with _serving(serve) as port:
        yield f"rtsp://127.0.0.1:{port}/live"
