#!/usr/bin/env python3
"""A load generator in a process of its own: one picture again and again, over gRPC.

    python tests/chaos/load.py --url 127.0.0.1:8001 --rate 800 --seconds 10 --priority 2

Open loop with --rate (requests a second, sent whether answers come or not), closed loop with --in-flight.
Prints one JSON object: what became of each request (sent at, seconds to the answer, outcome).
"""

from __future__ import annotations

import argparse
import collections
import json
import threading
import time
from pathlib import Path

import numpy as np
import tritonclient.grpc as grpc

PICTURE = Path(__file__).parent.parent / "data" / "astronaut_720p.jpg"
SERVED, SHED = "served", "shed"  # any other outcome is the error's text
MAX_PENDING = 4000


def outcome(error: Exception | None) -> str:
    if error is None:
        return SERVED
    status = error.status() if hasattr(error, "status") else None
    return SHED if status == "StatusCode.UNAVAILABLE" else f"{status}: {error}"[:300]


def run(url: str, seconds: float, rate: float, in_flight: int, priority: int, timeout_us: int) -> list:
    """Rows of [sent at (seconds since the start), seconds to the answer, outcome]."""
    tensor = grpc.InferInput("image", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[PICTURE.read_bytes()]], np.object_))
    outputs = [grpc.InferRequestedOutput("num_detections")]
    rows: collections.deque = collections.deque()
    slots = threading.BoundedSemaphore(in_flight or MAX_PENDING)
    extra = {"timeout": timeout_us} if timeout_us else {}
    sent = 0
    with grpc.InferenceServerClient(url) as client:
        begin = time.monotonic()
        while (now := time.monotonic() - begin) < seconds:
            if rate and now < sent / rate:
                time.sleep(min(0.005, sent / rate - now))
                continue
            slots.acquire()
            at = time.monotonic() - begin

            def answered(result, error, at=at) -> None:
                rows.append([at, time.monotonic() - begin - at, outcome(error)])
                slots.release()

            client.async_infer(
                "nudenet", [tensor], callback=answered, outputs=outputs, priority=priority, client_timeout=30, **extra
            )
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
    parser.add_argument("--priority", type=int, default=0)
    parser.add_argument("--timeout-us", type=int, default=0)
    options = parser.parse_args()
    print(json.dumps(run(**vars(options))))
