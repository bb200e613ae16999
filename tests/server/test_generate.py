"""Triton's generate endpoint without a gateway: base64 and a policy in JSON, and the shapes that it answers."""

from __future__ import annotations

import base64
import http.client
import io
import json

import numpy as np
import pytest
from PIL import Image

from nudenet_client import Client


def generate(server, picture, **parameters):
    """(status, answer) for a picture; bytes go as base64."""
    text = base64.b64encode(picture).decode() if isinstance(picture, bytes) else picture
    connection = http.client.HTTPConnection(server.http_url, timeout=30)
    try:
        connection.request(
            "POST", "/v2/models/nudenet/generate", json.dumps({"image": text, "encoding": "base64"} | parameters)
        )
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def jpeg(pixels) -> bytes:
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "JPEG", quality=92)
    return target.getvalue()


@pytest.fixture(scope="module")
def pictures(astronaut):
    """By the number of detections."""
    small = np.asarray(Image.open(io.BytesIO(astronaut)).resize((640, 360)))
    return {0: jpeg(np.zeros((360, 640, 3), np.uint8)), 1: astronaut, 2: jpeg(np.concatenate([small, small], axis=1))}


@pytest.mark.parametrize("count", [0, 1, 2])
def test_the_answer_is_that_of_grpc_in_the_documented_shape(server, pictures, count):
    status, answer = generate(server, pictures[count], policy="standard")
    assert status == 200
    with Client(server.grpc_url) as client:
        found = client.detect(pictures[count])
    assert len(found) == count
    rows = np.column_stack([found.boxes, found.class_ids, found.confidences]).astype(np.float32)
    assert answer["num_detections"] == count
    np.testing.assert_allclose(np.array(answer["detections"], np.float32).reshape(-1, 6), rows, atol=0.05)
    labels = list(found.labels)
    assert answer["labels"] == (labels[0] if count == 1 else labels)  # a single element comes without its list
    assert answer["error"] == ""
    assert answer["verdict"] == "allow"
    assert json.loads(answer["reasons"])["policy"] == "standard"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/9j/4AAQ\n", "not base64"),
        ("data:image/jpeg;base64,/9j/", "a data: URL"),
        ("", "empty"),
        ("QUFB" * 7_000_000, "28000000 characters of base64, the limit is"),
    ],
)
def test_what_is_no_base64_is_refused(server, text, message):
    status, answer = generate(server, text)
    assert status == 400
    assert message in answer["error"]
    status, answer = generate(server, text, on_error="report", policy="standard")
    assert (status, answer["num_detections"], answer["verdict"]) == (200, -1, "error")
    assert message in answer["error"]


def test_the_encoding_is_named_exactly(server, astronaut):
    status, answer = generate(server, astronaut, encoding="base32")
    assert status == 400
    assert "encoding must be one of raw, base64, got 'base32'" in answer["error"]
    status, answer = generate(server, astronaut, encoding="raw")
    assert "the parameter encoding=base64" in answer["error"]
