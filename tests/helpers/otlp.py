"""An OTLP/HTTP receiver for tests: keeps the spans it is sent, parsed by OpenTelemetry's own protobuf messages.

Takes both encodings of the protocol, binary protobuf and its JSON mapping; Triton sends JSON.
"""

from __future__ import annotations

import base64
import gzip
import http.server
import json
import threading
import time
from collections.abc import Callable

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

ID_FIELDS = ("traceId", "spanId", "parentSpanId")


def parse(body: bytes, content_type: str) -> ExportTraceServiceRequest:
    """One export request. In OTLP's JSON ids are hexadecimal, where protobuf's own JSON mapping has base64."""
    if content_type != "application/json":
        return ExportTraceServiceRequest.FromString(body)

    def with_base64_ids(pairs: list[tuple[str, object]]) -> dict[str, object]:
        return {
            key: base64.b64encode(bytes.fromhex(str(value))).decode() if key in ID_FIELDS else value
            for key, value in pairs
        }

    return json_format.ParseDict(json.loads(body, object_pairs_hook=with_base64_ids), ExportTraceServiceRequest())


class Receiver:
    """A context manager; `spans` and `resources` grow as batches arrive."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resources: list[dict[str, str]] = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver.take(self.path, parse(body, self.headers["Content-Type"]))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/traces"

    def take(self, path: str, request: ExportTraceServiceRequest) -> None:
        assert path == "/v1/traces"
        for resource in request.resource_spans:
            self.resources.append({pair.key: pair.value.string_value for pair in resource.resource.attributes})
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)

    def wait(self, enough: Callable[[list[Span]], bool], seconds: float = 20) -> list[Span]:
        """The spans, as soon as they are enough, or after `seconds`."""
        deadline = time.monotonic() + seconds
        while not enough(self.spans) and time.monotonic() < deadline:
            time.sleep(0.05)
        return list(self.spans)

    def __enter__(self) -> Receiver:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
