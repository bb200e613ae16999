#!/usr/bin/env python3
"""A load generator in a process of its own: one picture again and again, over gRPC.

    python tests/chaos/load.py --url 127.0.0.1:8001 --rate 800 --seconds 10 --priority 2

Open loop with --rate (requests a second, sent whether answers come or not), closed loop with --in-flight.
Prints one JSON list: what became of each request (sent at, seconds to the answer, outcome).
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import threading
import time
from pathlib import Path

import grpc
from tritonclient.grpc import service_pb2

PICTURE = Path(__file__).parent.parent / "data" / "astronaut_720p.jpg"
SERVED, LATE = "served", "late"  # any other outcome is the error's text
MAX_PENDING = 4000
METHOD = "/inference.GRPCInferenceService/ModelInfer"


def outcome(call: grpc.Future) -> str:
    code = call.code()
    known = {
        grpc.StatusCode.OK: SERVED,
        grpc.StatusCode.DEADLINE_EXCEEDED: LATE,  # the client has gone away, and the server is told
    }
    return known.get(code) or f"{code}: {call.details()}"[:300]


def _request(model: str, priority: int, timeout_us: int) -> bytes:
    """One request in wire format: built once, so that the load costs the served machine little."""
    data = PICTURE.read_bytes()
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name="image", datatype="BYTES", shape=[1, 1])
    request.raw_input_contents.append(len(data).to_bytes(4, "little") + data)
    request.outputs.add(name="num_detections")
    if priority:
        request.parameters["priority"].uint64_param = priority
    if timeout_us:
        request.parameters["timeout"].int64_param = timeout_us
    return request.SerializeToString()


def run(
    url: str,
    seconds: float,
    rate: float,
    in_flight: int,
    model: str,
    priority: int,
    timeout_us: int,
    patience: tuple[float, float],
) -> list:
    """Rows of [sent at (seconds since the start), seconds to the answer, outcome]."""
    request = _request(model, priority, timeout_us)
    rows: collections.deque = collections.deque()
    slots = threading.BoundedSemaphore(in_flight or MAX_PENDING)
    sent = 0
    with grpc.insecure_channel(url) as channel:
        infer = channel.unary_unary(METHOD)
        begin = time.monotonic()
        while (now := time.monotonic() - begin) < seconds:
            if rate and now < sent / rate:
                time.sleep(min(0.005, sent / rate - now))
                continue
            slots.acquire()
            at = time.monotonic() - begin

            def answered(call, at=at) -> None:
                rows.append([at, time.monotonic() - begin - at, outcome(call)])
                slots.release()

            infer.future(request, timeout=random.uniform(*patience)).add_done_callback(answered)
            sent += 1
        while len(rows) < sent:
            time.sleep(0.01)
    return sorted(rows, key=lambda row: row[0])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rate", type=float, default=0)
    parser.add_argument("--in-flight", type=int, default=0)
    parser.add_argument("--model", default="nudenet")
    parser.add_argument("--priority", type=int, default=0)
    parser.add_argument("--timeout-us", type=int, default=0)
    parser.add_argument("--patience", type=lambda text: tuple(map(float, text.split(","))), default=(30.0, 30.0))
    options = parser.parse_args()
    print(json.dumps(run(**vars(options))))
