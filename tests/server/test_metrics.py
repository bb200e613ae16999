"""The counters that the models add to /metrics."""

from __future__ import annotations

import re
import time
import urllib.request

import numpy as np
import pytest
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException

from container.repository import Tuning
from helpers import hostile
from nudenet_tools.server.process import Options, Ports, Server


def ask(client, *pictures: bytes):
    """The answer, to wait for."""
    tensor = grpc.InferInput("image", [len(pictures), 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[picture] for picture in pictures], np.object_))
    answers = []
    client.async_infer(
        "nudenet",
        [tensor],
        callback=lambda result, error: answers.append((result, error)),
        parameters={"on_error": "report", "policy": "standard"},
    )
    return answers


def wait(answers: list) -> None:
    while not all(answers):
        time.sleep(0.01)
    failures = [str(error) for ((_, error),) in answers if error is not None]
    assert not failures


def counters(server) -> dict[str, float]:
    with urllib.request.urlopen(server.metrics_url, timeout=10) as response:
        text = response.read().decode()
    return {name: float(value) for name, value in re.findall(r"^(nudenet_\S+) (\S+)$", text, re.MULTILINE)}


def test_pictures_are_counted_by_what_became_of_them(onnx_path, astronaut):
    tuning = Tuning(instances={"nudenet_preprocess": 2})
    with Server(Options(ports=Ports.free(), tuning=tuning)) as server, grpc.InferenceServerClient(server.grpc_url) as c:
        for _ in range(4):  # few at a time: the queue's time-out must not matter on a busy machine
            wait([ask(c, astronaut, hostile.png(), astronaut[:9000]) for _ in range(3)])
        seen: dict[str, float] = {}
        deadline = time.monotonic() + 30
        # Handed over at most once a second, when a request comes by: so keep both instances busy with empty ones.
        last = ('nudenet_rejected_total{reason="not_jpeg"}', 'nudenet_detections_total{class="FACE_FEMALE"}')
        while time.monotonic() < deadline and min(seen.get(name, 0) for name in last) < 12:
            wait([ask(c, b"") for _ in range(8)])
            seen = counters(server)
            time.sleep(0.1)
    assert seen["nudenet_decoded_total"] == 12
    assert seen["nudenet_megapixels_total"] == pytest.approx(12 * 1280 * 720 / 1e6)
    assert 0 < seen["nudenet_decode_seconds_total"] < 12
    assert seen['nudenet_rejected_total{reason="not_jpeg"}'] == 12
    assert seen['nudenet_rejected_total{reason="truncated"}'] == 12
    assert seen['nudenet_rejected_total{reason="empty"}'] > 0
    assert seen['nudenet_detections_total{class="FACE_FEMALE"}'] == 12
    # The outputs were not named, so all of them were computed: the empty pictures, too, were judged.
    assert seen['nudenet_verdicts_total{policy="standard",verdict="allow"}'] == 12
    assert seen['nudenet_verdicts_total{policy="standard",verdict="error"}'] > 24
    assert seen["nudenet_in_flight"] == 0  # what was refused or answered is under way no more


def test_error_responses_are_counted_by_step_and_reason(server, astronaut):
    def failures() -> dict[str, float]:
        return {name: value for name, value in counters(server).items() if name.startswith("nudenet_failures_total")}

    before = failures()
    # Each step's count of its own faults is there from the beginning: a rate needs a first value.
    for step in ("nudenet_preprocess", "nudenet_trt", "nudenet_postprocess"):
        assert f'nudenet_failures_total{{reason="internal",step="{step}"}}' in before
    expected = {
        'nudenet_failures_total{reason="not_jpeg",step="nudenet_preprocess"}': (hostile.png(), {}),
        'nudenet_failures_total{reason="parameters",step="nudenet_postprocess"}': (astronaut, {"iou_threshold": "7"}),
    }
    deadline = time.monotonic() + 30
    with grpc.InferenceServerClient(server.grpc_url) as client:
        while not all(failures().get(name, 0) > before.get(name, 0) for name in expected):
            assert time.monotonic() < deadline, failures()
            for picture, parameters in expected.values():
                tensor = grpc.InferInput("image", [1, 1], "BYTES")
                tensor.set_data_from_numpy(np.array([[picture]], np.object_))
                with pytest.raises(InferenceServerException):
                    client.infer("nudenet", [tensor], parameters=parameters, client_timeout=30)
            time.sleep(0.2)
