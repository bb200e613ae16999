"""The code of the steps in one process answers as the server does, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import DATA
from nudenet_client import Client
from nudenet_steps.engines import engine_class
from nudenet_steps.pipeline import ENGINE_FILES, Pipeline
from nudenet_steps.preprocess.jpeg import JpegError

PICTURES = sorted([*DATA.glob("*.jpg"), *DATA.glob("people/*.jpg")])


@pytest.fixture(scope="module")
def pipeline(onnx_path):
    """With the engine of the server's configuration; one picture at a time, as it is asked here."""
    return Pipeline(engine_class("openvino")(ENGINE_FILES, max_batch=1), max_batch=1)


def test_bundled_pictures_are_answered_as_by_the_server(server, pipeline):
    assert len(PICTURES) >= 6
    found = 0
    with Client(server.grpc_url) as client:
        for path in PICTURES:
            (rows,) = pipeline.run([path.read_bytes()])
            served = [(*each.box, each.class_id, each.confidence) for each in client.detect(path)]
            np.testing.assert_array_equal(rows, np.array(served, np.float32).reshape(-1, 6), err_msg=path.name)
            found += len(rows)
    assert found >= 10


def test_a_refused_picture_has_the_server_s_words(server, pipeline):
    (error,) = pipeline.run([b"no picture"])
    assert isinstance(error, JpegError)
    with Client(server.grpc_url) as client:
        (answer,) = client.detect_many([b"no picture"], on_error="report")
    assert answer.error == str(error)
