"""The command lines of deploy/ against the real tritonserver: its --help knows them, it runs and traces with them."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException

from container import repository, security
from helpers import manifests, otlp
from nudenet_tools.server.process import Ports, Server, find_installation

DEPLOY = Path(__file__).parents[2] / "deploy"
ADMIN_KEY = "only-for-this-test"
# What the test has to choose itself: how soon, how often and where to spans are sent.
OWN = ("--trace-config=rate", "--trace-config=opentelemetry,url")
TRACE_ID, SPAN_ID = "ab" * 16, "cd" * 8


@pytest.fixture(scope="module")
def known_options() -> set[str]:
    installation = find_installation()
    libraries = ":".join(map(str, installation.libraries))
    result = subprocess.run(
        [str(installation.binary), "--help"],
        env={**os.environ, "LD_LIBRARY_PATH": libraries},
        capture_output=True,
        text=True,
        check=False,
    )
    return set(re.findall(r"^\s+(--[a-z-]+)", result.stdout + result.stderr, re.MULTILINE))


@pytest.mark.parametrize("folder", manifests.FOLDERS)
def test_tritonserver_knows_every_option(folder: str, known_options: set[str]):
    assert len(known_options) > 50
    options = {argument.split("=", 1)[0] for argument in manifests.triton_arguments(folder)}
    assert options <= known_options


def test_tritonserver_knows_every_option_of_compose(known_options: set[str]):
    options = set(re.findall(r"^  - (--[a-z-]+)=", (DEPLOY / "compose.yaml").read_text(), re.MULTILINE))
    assert "--trace-config" in options
    assert options <= known_options


@pytest.fixture(scope="module")
def receiver() -> Iterator[otlp.Receiver]:
    with otlp.Receiver() as running:
        yield running


@pytest.fixture(scope="module")
def deployed(onnx_path: Path, receiver: otlp.Receiver) -> Iterator[Server]:
    """The real server with the arguments of the tracing overlay, which are the base's and more."""
    options = manifests.triton_options("overlays/tracing")
    arguments = [argument for argument in options.arguments if not argument.startswith(OWN)]
    arguments += [
        "--trace-config=rate=1",
        f"--trace-config=opentelemetry,url={receiver.url}",
        "--trace-config=opentelemetry,bsp_schedule_delay=100",
    ]
    here = dataclasses.replace(
        options,
        ports=Ports.free(),
        config_name="cpu",
        model_repository=repository.MODEL_REPOSITORY,
        tuning=repository.Tuning(),
        exposure=security.Exposure(security.LOOPBACK, private=True),
        admin_key=ADMIN_KEY,
        arguments=tuple(arguments),
    )
    with Server(here) as running:
        yield running


def infer(module, client, picture: bytes, **options) -> int:
    image = module.InferInput("image", [1, 1], "BYTES")
    image.set_data_from_numpy(np.array([[picture]], np.object_))
    return int(client.infer("nudenet", [image], **options).as_numpy("num_detections")[0, 0])


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_callers_span_is_the_parent_of_every_steps_span(
    deployed: Server, receiver: otlp.Receiver, astronaut: bytes, protocol: str
):
    module = grpcclient if protocol == "grpc" else httpclient
    trace_id = TRACE_ID if protocol == "grpc" else TRACE_ID[::-1]
    url = deployed.grpc_url if protocol == "grpc" else deployed.http_url
    with module.InferenceServerClient(url) as client:
        headers = {"traceparent": f"00-{trace_id}-{SPAN_ID}-01"}
        assert infer(module, client, astronaut, headers=headers) == 1

    def own() -> dict[bytes, str]:
        return {span.span_id: span for span in receiver.spans if span.trace_id.hex() == trace_id}

    receiver.wait(lambda _: len(own()) >= 8)
    spans = own()
    by_name = {span.name: span for span in spans.values() if span.name != "compute"}
    assert by_name.keys() == {"InferRequest", "nudenet", "nudenet_preprocess", "nudenet_trt", "nudenet_postprocess"}
    assert by_name["InferRequest"].parent_span_id.hex() == SPAN_ID
    assert spans[by_name["nudenet"].parent_span_id].name == "InferRequest"
    for step in ("nudenet_preprocess", "nudenet_trt", "nudenet_postprocess"):
        assert spans[by_name[step].parent_span_id].name == "nudenet"
        assert by_name[step].end_time_unix_nano > by_name[step].start_time_unix_nano
    computed = {spans[span.parent_span_id].name for span in spans.values() if span.name == "compute"}
    assert computed == {"nudenet_preprocess", "nudenet_trt", "nudenet_postprocess"}
    assert all(resource["service.name"] == "nudenet" for resource in receiver.resources)


def test_administration_needs_the_key_and_inference_does_not(deployed: Server, astronaut: bytes):
    with grpcclient.InferenceServerClient(deployed.grpc_url) as client:
        assert infer(grpcclient, client, astronaut) == 1
        with pytest.raises(InferenceServerException, match="admin-key"):  # closed with the key, too
            client.get_system_shared_memory_status(headers={"triton-grpc-protocol-admin-key": ADMIN_KEY})
        for ask in (client.get_model_repository_index, client.get_trace_settings):
            with pytest.raises(InferenceServerException, match="admin-key"):
                ask()
            ask(headers={"triton-grpc-protocol-admin-key": ADMIN_KEY})
    with httpclient.InferenceServerClient(deployed.http_url) as client:
        assert infer(httpclient, client, astronaut) == 1
        with pytest.raises(InferenceServerException, match="restricted"):
            client.get_model_repository_index()
        assert len(client.get_model_repository_index(headers={"admin-key": ADMIN_KEY})) == 4
