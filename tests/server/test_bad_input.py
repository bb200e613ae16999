"""Every kind of bad input on the live server: one clear error each, and never a wrong answer for a neighbour."""

from __future__ import annotations

import http.client
import json
import queue
import threading

import numpy as np
import pytest
import tritonclient.grpc as grpc
import tritonclient.http as http_client
from tritonclient.utils import InferenceServerException

from conftest import DATA, models_with_reader
from container.repository import Tuning
from helpers import hostile
from nudenet_tools.server.process import Options, Ports, Server

GOOD = (DATA / "astronaut_720p.jpg").read_bytes()
BAD = hostile.bad_pictures(GOOD)
OUTPUTS = ("detections", "num_detections", "error")


@pytest.fixture(scope="module", params=["server", "rehearsal"])
def client(request):
    server = request.getfixturevalue(request.param)
    with grpc.InferenceServerClient(server.grpc_url) as connected:
        yield connected


def tensor(pictures: list[bytes], module=grpc):
    made = module.InferInput("image", [len(pictures), 1], "BYTES")
    made.set_data_from_numpy(np.array([[picture] for picture in pictures], np.object_))
    return made


def ask(client, pictures, parameters=None, outputs=("detections", "num_detections")):
    wanted = [grpc.InferRequestedOutput(name) for name in outputs]
    answer = client.infer("nudenet", [tensor(pictures)], outputs=wanted, parameters=parameters, client_timeout=30)
    return {name: answer.as_numpy(name) for name in outputs}


@pytest.fixture(scope="module")
def expected(client):
    """The right answer for the good picture."""
    return ask(client, [GOOD])["detections"][0]


def assert_right(detections: np.ndarray, expected: np.ndarray) -> None:
    # Another batch size may add in another order: a hundredth of a pixel.
    np.testing.assert_allclose(detections, expected, atol=0.05)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_picture_fails_its_request_with_the_reason(client, expected, name):
    data, _, message = BAD[name]
    with pytest.raises(InferenceServerException) as refused:
        ask(client, [data])
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert "image 0 of 1: " in refused.value.message()
    assert message in refused.value.message()
    assert_right(ask(client, [GOOD])["detections"][0], expected)


def test_fail_names_the_element(client):
    with pytest.raises(InferenceServerException, match=r"image 5 of 8: not a JPEG: this is a PNG picture"):
        ask(client, [GOOD] * 5 + [BAD["png"][0]] + [GOOD] * 2)


def test_more_elements_than_a_batch_are_refused(client):
    with pytest.raises(InferenceServerException, match="batch-size must be <= 8"):
        ask(client, [GOOD] * 9)


@pytest.mark.parametrize("model", ["nudenet", "nudenet_postprocess"])
def test_request_parameters_are_bounded(client, expected, model):
    with pytest.raises(InferenceServerException, match=r"request parameters take \d+ bytes, the limit is 4096"):
        inputs = [tensor([GOOD])] if model == "nudenet" else postprocess_inputs(3)
        client.infer(model, inputs, parameters={"classes": "FACE_FEMALE," * 1000}, client_timeout=30)
    assert_right(ask(client, [GOOD])["detections"][0], expected)


def postprocess_inputs(candidates: int) -> list[grpc.InferInput]:
    made = []
    for name, shape in (("candidates", [1, candidates, 6]), ("geometry", [1, 4])):
        made.append(grpc.InferInput(name, shape, "FP32"))
        made[-1].set_data_from_numpy(np.ones(shape, np.float32))
    return made


def test_a_direct_call_has_at_most_the_detectors_candidates(client):
    answer = client.infer("nudenet_postprocess", postprocess_inputs(1260), client_timeout=30)
    assert answer.as_numpy("num_detections").tolist() == [[0]]
    with pytest.raises(InferenceServerException, match="candidates: 60000 a picture, the detector has 2100"):
        client.infer("nudenet_postprocess", postprocess_inputs(60_000), client_timeout=30)


def test_report_answers_the_other_seven(client, expected):
    for number, (name, (data, _, message)) in enumerate(BAD.items()):
        bad_at = number % 8
        pictures = [GOOD] * 8
        pictures[bad_at] = data
        answer = ask(client, pictures, {"on_error": "report"}, OUTPUTS)
        assert answer["num_detections"][bad_at, 0] == -1, name
        assert message in answer["error"][bad_at, 0].decode()
        assert not answer["detections"][bad_at].any()
        for i in set(range(8)) - {bad_at}:
            assert answer["num_detections"][i, 0] == len(expected), name
            assert answer["error"][i, 0] == b""
            assert_right(answer["detections"][i], expected)


def test_report_when_all_are_bad(client):
    answer = ask(client, [b"", BAD["png"][0]], {"on_error": "report"}, OUTPUTS)
    assert answer["num_detections"].tolist() == [[-1], [-1]]
    assert answer["detections"].shape == (2, 0, 6)
    assert all(answer["error"].ravel())


def test_good_and_bad_in_flight_together(client, expected):
    """300 concurrent requests share dynamic batches: each gets its own answer, by value or by reason."""
    bad = [entry for entry in BAD.values() if len(entry[0]) < 10**6]
    rng = np.random.default_rng(5)
    done: queue.Queue = queue.Queue()
    slots = threading.Semaphore(32)
    sent = {}
    for number in range(300):
        data, message = (GOOD, None) if rng.random() < 0.5 else (lambda e: (e[0], e[2]))(bad[rng.integers(len(bad))])
        sent[number] = message
        slots.acquire()

        def finished(result, error, number=number):
            slots.release()
            done.put((number, result, error))

        client.async_infer("nudenet", [tensor([data])], callback=finished, client_timeout=60)
    for _ in range(300):
        number, result, error = done.get(timeout=60)
        message = sent.pop(number)
        if message is None:
            assert error is None
            assert_right(result.as_numpy("detections")[0], expected)
        else:
            assert message in error.message()
    assert not sent


@pytest.mark.parametrize(
    ("name", "datatype", "shape", "array", "message"),
    [
        ("image", "FP32", [1, 1], np.zeros((1, 1), np.float32), "data-type is 'FP32', but model 'nudenet' expects"),
        ("image", "UINT8", [1, 9], np.zeros((1, 9), np.uint8), "data-type|shape"),
        ("image", "BYTES", [1], np.array([GOOD], np.object_), "shape"),
        ("image", "BYTES", [1, 2], np.array([[GOOD, GOOD]], np.object_), r"Expected \[-1,1\], got \[1,2\]"),
        ("image", "BYTES", [1, 1, 1], np.array([[[GOOD]]], np.object_), r"got \[1,1,1\]"),
        ("image", "BYTES", [9, 1], np.array([[GOOD]] * 9, np.object_), "<= 8"),
        ("image", "BYTES", [0, 1], np.zeros((0, 1), np.object_), "batch|shape|request"),
        ("picture", "BYTES", [1, 1], np.array([[GOOD]], np.object_), "'picture'|'image'"),
    ],
)
def test_wrong_tensors_are_refused(client, expected, name, datatype, shape, array, message):
    made = grpc.InferInput(name, shape, datatype)
    made.set_data_from_numpy(array)
    with pytest.raises(InferenceServerException, match=message) as refused:
        client.infer("nudenet", [made], client_timeout=30)
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert_right(ask(client, [GOOD])["detections"][0], expected)


def test_unknown_model_and_output_are_named(client):
    with pytest.raises(InferenceServerException, match="nudity"):
        client.infer("nudity", [tensor([GOOD])])
    with pytest.raises(InferenceServerException, match="boxes"):
        ask(client, [GOOD], outputs=("boxes",))


@pytest.mark.parametrize("text", ['a"b', "a\\", "\u00fc\u0000", "x" * 4_000, "{}"])
def test_strange_parameter_text_is_data(client, text):
    with pytest.raises(InferenceServerException) as refused:
        ask(client, [GOOD], {"classes": text})
    assert "classes must be comma-separated label names" in refused.value.message()


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b"{", {}),
        (b"[]", {}),
        (json.dumps({"inputs": []}).encode(), {}),
        (json.dumps({"inputs": [{"name": "image", "shape": [1, 1], "datatype": "BYTES"}]}).encode(), {}),
        (json.dumps({"inputs": [{"name": "image", "shape": [1, 1], "datatype": "BYTES", "data": [7]}]}).encode(), {}),
        (
            json.dumps({"inputs": [{"name": "image", "shape": [-1, 1], "datatype": "BYTES", "data": ["x"]}]}).encode(),
            {},
        ),
        (b"{}" + GOOD, {"Inference-Header-Content-Length": "99999999"}),
        (b"{}" + GOOD, {"Inference-Header-Content-Length": "-2"}),
        (b"[" * 50_000, {}),
    ],
    ids=[
        "nothing",
        "half",
        "list",
        "no inputs",
        "no data",
        "number",
        "negative",
        "long header",
        "negative header",
        "deep",
    ],
)
def test_broken_http_bodies_are_refused(server, client, expected, body, headers):
    connection = http.client.HTTPConnection(server.http_url, timeout=30)
    try:
        connection.request("POST", "/v2/models/nudenet/infer", body, headers)
        response = connection.getresponse()
        assert response.status in (400, 404, 500)  # Triton says 500 for bodies that are no JSON object
        assert json.loads(response.read())["error"]
    finally:
        connection.close()
    assert_right(ask(client, [GOOD])["detections"][0], expected)


def test_a_byte_string_length_that_lies_is_refused(client, expected):
    made = grpc.InferInput("image", [1, 1], "BYTES")
    made.set_data_from_numpy(np.array([[GOOD]], np.object_))
    for length in (0xFFFFFFFF, len(GOOD) + 1, 3):
        made._raw_content = length.to_bytes(4, "little") + GOOD
        with pytest.raises(InferenceServerException):
            client.infer("nudenet", [made], client_timeout=30)
    assert_right(ask(client, [GOOD])["detections"][0], expected)


def test_http_reports_a_bad_picture_too(server):
    with http_client.InferenceServerClient(server.http_url) as client:
        with pytest.raises(InferenceServerException, match="image 0 of 1: not a JPEG: this is a PNG picture"):
            client.infer("nudenet", [tensor([BAD["png"][0]], http_client)])
        answer = client.infer("nudenet", [tensor([b"", GOOD], http_client)], parameters={"on_error": "report"})
        assert answer.as_numpy("num_detections").tolist() == [[-1], [1]]


def test_a_failure_that_nobody_thought_of_hurts_one_picture(onnx_path, expected, tmp_path):
    """With a reader that breaks on one picture, as libraries do on files that they were never tried with."""
    models = models_with_reader(tmp_path, onnx_path, "if data == b'unheard-of': return {}[6]")
    with (
        Server(Options(ports=Ports.free(), model_repository=models)) as own,
        grpc.InferenceServerClient(own.grpc_url) as client,
    ):
        answer = ask(client, [GOOD, b"unheard-of", GOOD], {"on_error": "report"}, OUTPUTS)
        assert answer["num_detections"].tolist() == [[len(expected)], [-1], [len(expected)]]
        assert answer["error"][1, 0] == b"reading failed: KeyError(6)"
        for i in (0, 2):
            assert_right(answer["detections"][i], expected)
        with pytest.raises(InferenceServerException, match=r"image 1 of 2: reading failed: KeyError\(6\)"):
            ask(client, [GOOD, b"unheard-of"])


def test_limits_and_strictness_are_parameters_of_the_model(onnx_path):
    parameters = {"nudenet_preprocess": {"strict": "false", "max_pixels": "1000000", "max_scans": "5"}}
    with (
        Server(Options(ports=Ports.free(), tuning=Tuning(parameters=parameters))) as server,
        grpc.InferenceServerClient(server.grpc_url) as client,
    ):
        assert ask(client, [BAD["hole in the middle"][0]])["num_detections"].shape == (1, 1)
        for picture, message in (
            (hostile.encode(hostile.photo(1001, 1000)), "1001000 pixels, the limit is 1000000"),
            (hostile.many_scans(10), "10 scans, the limit is 5"),
        ):
            with pytest.raises(InferenceServerException, match=message):
                ask(client, [picture])
