"""Policies on the live server: the whole step with real requests, and what each client gets."""

from __future__ import annotations

import asyncio
import functools
import json

import numpy as np
import pyarrow.dataset
import pytest
import tritonclient.grpc as grpc
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.utils import InferenceServerException

from container.repository import MODEL_REPOSITORY
from nudenet_client import AsyncClient, Client, Parameters, RequestRefused
from nudenet_steps import pipeline
from nudenet_steps.postprocess import policy, policy_file
from nudenet_tools.bulk.parts import Parts
from nudenet_tools.bulk.worker import EmbeddedDetector, ServerDetector
from nudenet_tools.server.process import Options, Ports, Server, ServerError

LABELS = pipeline.labels()
POLICIES = MODEL_REPOSITORY / "nudenet_postprocess" / policy_file.FILE
GEOMETRY = np.array([4, 4, 1280, 720], np.float32)
TEXTS = ("verdict", "reasons")


@functools.cache
def network() -> str:
    """Of the graph that is served; it may be exported only when the first server starts."""
    return policy_file.network_sha256(pipeline.ENGINE_FILES)


@functools.cache
def judge() -> policy.Judge:
    """The served policies."""
    return policy.Judge(policy_file.load(POLICIES, LABELS), LABELS, network())


@pytest.fixture(scope="module")
def triton(server):
    with grpc.InferenceServerClient(server.grpc_url) as client:
        yield client


def step(triton, candidates, geometry, parameters, outputs=("num_detections", *TEXTS)):
    """The postprocessing step alone."""
    inputs = []
    for name, array in (("candidates", candidates), ("geometry", geometry)):
        inputs.append(grpc.InferInput(name, list(array.shape), "FP32"))
        inputs[-1].set_data_from_numpy(array)
    wanted = [grpc.InferRequestedOutput(name) for name in outputs]
    result = triton.infer("nudenet_postprocess", inputs, outputs=wanted, parameters=parameters)
    return {name: result.as_numpy(name) for name in outputs}


def clustered(seed: int, count: int) -> np.ndarray:
    """FP32 [1,count,6] around three places, so that most boxes overlap and hide each other."""
    rng = np.random.default_rng(seed)
    middle = rng.uniform((40, 40), (280, 140), (3, 2))[rng.integers(3, size=count)] + rng.normal(0, 4, (count, 2))
    half = rng.uniform(1, 40, (count, 2))
    classes, confidence = rng.integers(0, len(LABELS), count), rng.uniform(0, 1, count) ** 2
    return np.column_stack([middle - half, middle + half, classes, confidence]).astype(np.float32)[None]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 60),
    name=st.sampled_from(["strict", "standard", "lenient"]),
    parameters=st.fixed_dictionaries(
        {},
        optional={
            "confidence_threshold": st.sampled_from(["0", "0.5", "1"]),
            "iou_threshold": st.sampled_from(["0", "0.3", "1"]),
            "max_detections": st.sampled_from(["1", "5"]),
            "classes": st.sampled_from(["FACE_MALE", "FEET_COVERED,FACE_FEMALE"]),
        },
    ),
)
def test_no_parameter_and_no_overlap_changes_a_verdict(triton, seed, count, name, parameters):
    candidates = clustered(seed, count)
    answer = step(triton, candidates, GEOMETRY[None], parameters | {"policy": name})
    expected = judge().judge(candidates[0], GEOMETRY, name)
    assert answer["verdict"][0, 0].decode() == expected.verdict
    assert json.loads(answer["reasons"][0, 0]) == json.loads(json.dumps(expected.reasons))


def test_a_confident_face_over_an_exposed_part_hides_nothing(triton):
    box, parameters = (100, 50, 160, 110), {"policy": "standard", "max_detections": "1"}
    rows = np.array([[[*box, LABELS.index("FACE_MALE"), 0.99], [*box, LABELS.index("ANUS_EXPOSED"), 0.7]]], np.float32)
    answer = step(triton, rows, GEOMETRY[None], parameters, ("detections", "verdict"))
    assert answer["detections"][0, :, 4].tolist() == [LABELS.index("FACE_MALE")]
    assert answer["verdict"].tolist() == [[b"block"]]


def test_without_a_policy_the_outputs_are_empty(triton, astronaut):
    image = grpc.InferInput("image", [1, 1], "BYTES")
    image.set_data_from_numpy(np.array([[astronaut]], np.object_))
    everything = triton.infer("nudenet", [image])  # names no outputs: all of them come
    assert [everything.as_numpy(name).tolist() for name in TEXTS] == [[[b""]], [[b""]]]
    judged = triton.infer("nudenet", [image], parameters={"policy": "strict"})
    assert judged.as_numpy("verdict").tolist() == [[b"allow"]]
    assert json.loads(judged.as_numpy("reasons")[0, 0])["findings"] == []


def test_an_unknown_policy_is_refused_also_where_no_verdict_is_asked_for(triton):
    with pytest.raises(InferenceServerException) as refused:
        step(triton, clustered(0, 3), GEOMETRY[None], {"policy": "mild"}, ("num_detections",))
    assert "policy must be one of strict, standard, lenient, got 'mild'" in refused.value.message()


@pytest.mark.parametrize("protocol", ["grpc", "http", "asyncio"])
def test_clients_get_verdicts(server, astronaut, protocol):
    url = server.http_url if protocol == "http" else server.grpc_url
    pictures, wanted = [astronaut, b"no picture", "/no/such.jpg"], Parameters(policy="standard")
    if protocol == "asyncio":

        async def ask():
            async with AsyncClient(url) as client:
                return [answer async for answer in client.detect_many(pictures, wanted, on_error="report")]

        answers = asyncio.run(ask())
    else:
        with Client(url, protocol=protocol) as client:
            answers = list(client.detect_many(pictures, wanted, on_error="report"))
            with pytest.raises(RequestRefused, match="policy must be one of"):
                client.detect(astronaut, Parameters(policy="mild"))
            assert client.detect(astronaut).verdict == ""
    assert [answer.verdict for answer in answers] == ["allow", "error", "error"]
    assert [answer.reasons.get("policy_sha256") for answer in answers[:2]] == [
        judge().judge(np.zeros((0, 6), np.float32), GEOMETRY, "standard").reasons["policy_sha256"]
    ] * 2
    assert answers[0].reasons["network_sha256"] == network()
    assert answers[0].to_dict("a")["verdict"] == "allow"


def test_bulk_writes_the_same_verdicts_with_either_engine(server, astronaut, tmp_path):
    found, wanted = {}, Parameters(policy="strict")
    for name, detect in (
        ("server", ServerDetector([server.grpc_url], wanted)),
        ("embedded", EmbeddedDetector(wanted)),
    ):
        parts = Parts(str(tmp_path / name))
        parts.write(["a", "b"], detect([astronaut, b"no picture"]))
        found[name] = pyarrow.dataset.dataset(tmp_path / name).to_table(["verdict", "reasons"]).to_pydict()
    assert found["server"] == found["embedded"]
    assert found["server"]["verdict"] == ["allow", "error"]
    assert json.loads(found["server"]["reasons"][0])["network_sha256"] == network()


def test_a_default_policy_and_a_broken_file(tmp_path, onnx_path):
    """One server with a default; the same with a mistake in the file, which does not load."""
    from conftest import models_with_reader

    models = models_with_reader(tmp_path, onnx_path, "pass")
    path = models / "nudenet_postprocess" / policy_file.FILE
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"default": "lenient"}))
    with Server(Options(ports=Ports.free(), model_repository=models)) as running:
        with grpc.InferenceServerClient(running.grpc_url) as triton:
            answer = step(triton, clustered(1, 9), GEOMETRY[None], {})
            assert json.loads(answer["reasons"][0, 0])["policy"] == "lenient"
        with Client(running.grpc_url) as client:
            black = np.zeros((90, 160, 3), np.uint8)
            assert client.detect(black, Parameters(policy="default")).reasons["policy"] == "lenient"
            assert client.detect(black, Parameters(policy="strict")).reasons["policy"] == "strict"
    content["policies"]["strict"]["classes"]["ANUS_EXPOSED"]["block"] = 40
    path.write_text(json.dumps(content))
    log: list[str] = []
    with pytest.raises(ServerError):
        Server(Options(ports=Ports.free(), model_repository=models, on_log=log.append)).__enter__()
    assert any("ANUS_EXPOSED.block must be a number above 0, up to 1, got 40" in line for line in log)
