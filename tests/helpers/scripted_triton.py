"""A gRPC server that speaks Triton's protocol and misbehaves as told: what a healthy server cannot be asked to do."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import serialize_byte_tensor

# Called with the number of the request, from 0, and its context; may abort or sleep.
Behaviour = Callable[[int, grpc.ServicerContext], None]
# Changes an answer before it is sent.
Change = Callable[[service_pb2.ModelInferResponse], None]


class ScriptedTriton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Finds in every picture one FACE_MALE whose x1 is the picture's first number after ``picture``, to be reviewed.

    Attributes:
        requests: all that came. seconds_left: until each one's deadline. busiest: most requests at once.
    """

    def __init__(self, behave: Behaviour, change: Change | None = None) -> None:
        self._behave, self._change = behave, change
        self._lock = threading.Lock()
        self._active = 0
        self.requests: list[service_pb2.ModelInferRequest] = []
        self.seconds_left: list[float] = []
        self.busiest = 0
        self.url = ""

    def ModelInfer(self, request, context):
        with self._lock:
            number = len(self.requests)
            self.requests.append(request)
            self.seconds_left.append(context.time_remaining())
            self._active += 1
            self.busiest = max(self.busiest, self._active)
        try:
            self._behave(number, context)
            answer = _answer(request)
            if self._change is not None:
                self._change(answer)
            return answer
        finally:
            with self._lock:
                self._active -= 1


def pictures(request: service_pb2.ModelInferRequest) -> list[bytes]:
    """The pictures of one request."""
    data, found = request.raw_input_contents[0], []
    while data:
        length = int.from_bytes(data[:4], "little")
        found.append(data[4 : 4 + length])
        data = data[4 + length :]
    return found


def _answer(request: service_pb2.ModelInferRequest) -> service_pb2.ModelInferResponse:
    names = pictures(request)
    rows = np.zeros((len(names), 1, 6), np.float32)
    counts, errors = np.ones((len(names), 1), np.int32), np.full((len(names), 1), b"", np.object_)
    for i, name in enumerate(names):
        name = name.removeprefix(b"\xff\xd8\xff")  # what the gateway takes for a JPEG
        if name.startswith(b"picture"):
            rows[i, 0] = (int(name[7:]), 0, 10, 10, 12, 0.5)
        else:
            counts[i], errors[i] = -1, b"not a picture"
    labels = np.full((len(names), 1), b"FACE_MALE", np.object_)
    finding = {"class": "ANUS_EXPOSED", "verdict": "review", "confidence": 0.4}
    policy = {name: value.string_param for name, value in request.parameters.items()}.get("policy", "")
    reasons = json.dumps({"policy": policy, "findings": [finding]}).encode()
    response = service_pb2.ModelInferResponse(model_name="nudenet", model_version="1")
    wanted = {output.name for output in request.outputs}
    for output, kind, array in (
        ("detections", "FP32", rows),
        ("num_detections", "INT32", counts),
        ("labels", "BYTES", labels),
        ("error", "BYTES", errors),
        ("verdict", "BYTES", np.where(counts < 0, b"error", b"review").astype(np.object_)),
        ("reasons", "BYTES", np.full((len(names), 1), reasons, np.object_)),
    ):
        if output not in wanted:
            continue
        response.outputs.add(name=output, datatype=kind, shape=array.shape)
        raw = serialize_byte_tensor(array).item() if kind == "BYTES" else array.tobytes()
        response.raw_output_contents.append(raw)
    return response


@contextmanager
def scripted_triton(
    behave: Behaviour, credentials: grpc.ServerCredentials | None = None, change: Change | None = None
) -> Iterator[ScriptedTriton]:
    """Run one on a free port of the loopback interface."""
    servicer = ScriptedTriton(behave, change)
    server = grpc.server(futures.ThreadPoolExecutor(16))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    servicer.url = f"127.0.0.1:{port}"
    server.start()
    try:
        yield servicer
    finally:
        server.stop(0).wait()


def certificate(folder: Path) -> tuple[Path, Path]:
    """A new self-signed certificate for 127.0.0.1 and localhost: (certificate, private key), PEM files."""
    assert shutil.which("openssl"), "openssl is missing: install the Debian package openssl"
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = "subjectAltName=IP:127.0.0.1,DNS:localhost"
    subprocess.run(
        [*command.split(), "-addext", names, "-out", str(cert), "-keyout", str(key)], check=True, capture_output=True
    )
    return cert, key
