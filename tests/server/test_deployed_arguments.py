"""The command lines of deploy/ against the real tritonserver: its --help knows them, it runs and traces with them."""

from __future__ import annotations

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

from helpers import manifests, otlp
from nudenet_tools.server import security
from nudenet_tools.server.process import Options, Ports, Server, find_installation

DEPLOY = Path(__file__).parents[2] / "deploy"
ADMIN_KEY = "only-for-this-test"
# What the test has to choose itself: places, and how soon and how often spans are sent.
OWN = (
    "--model-repository",
    "--http-port",
    "--grpc-port",
    "--metrics-port",
    "--trace-config=rate",
    "--trace-config=opentelemetry,url",
)
# Given by the embedded server itself; a test compares.
CLOSING = ("--http-restricted-api", "--grpc-restricted-protocol", "--model-control-mode")
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


def test_tritonserver_knows_every_option_of_the_cpu_image(known_options: set[str]):
    dockerfile = (DEPLOY / "Dockerfile.cpu").read_text()
    options = set(re.findall(r'"(--[a-z-]+)', dockerfile)) | set(
        re.findall(r"^  - (--[a-z-]+)=", (DEPLOY / "compose.yaml").read_text(), re.MULTILINE)
    )
    assert {"--model-config-name", "--trace-config"} <= options <= known_options


@pytest.fixture(scope="module")
def receiver() -> Iterator[otlp.Receiver]:
    with otlp.Receiver() as running:
        yield running


@pytest.fixture(scope="module")
def deployed(onnx_path: Path, receiver: otlp.Receiver) -> Iterator[Server]:
    """The real server with the arguments of the tracing overlay, which are the base's and more."""
    arguments = [
        argument
        for argument in manifests.triton_arguments("overlays/tracing")
        if not argument.startswith((*OWN, *CLOSING))
    ]
    arguments += [
        "--trace-config=rate=1",
        f"--trace-config=opentelemetry,url={receiver.url}",
        "--trace-config=opentelemetry,bsp_schedule_delay=100",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(security, "CLOSED", security.CLOSED_WHEN_EXPOSED)  # as in a cluster, without its TLS
        with Server(Options(ports=Ports.free(), arguments=tuple(arguments), admin_key=ADMIN_KEY)) as running:
            yield running


def test_in_a_cluster_the_same_interfaces_are_closed_as_on_an_exposed_server():
    exposed = security.arguments("$(ADMIN_KEY)", security.Exposure("0.0.0.0", Path("cert"), Path("key")))
    expected = {option for option in exposed if option.startswith(CLOSING)}
    deployed = manifests.triton_arguments("base")
    assert {option for option in deployed if option.startswith(CLOSING)} == expected


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
        for ask in (
            client.get_model_repository_index,
            client.get_trace_settings,
            client.get_system_shared_memory_status,
        ):
            with pytest.raises(InferenceServerException, match="admin-key"):
                ask()
            ask(headers={"triton-grpc-protocol-admin-key": ADMIN_KEY})
    with httpclient.InferenceServerClient(deployed.http_url) as client:
        assert infer(httpclient, client, astronaut) == 1
        with pytest.raises(InferenceServerException, match="restricted"):
            client.get_model_repository_index()
        assert len(client.get_model_repository_index(headers={"admin-key": ADMIN_KEY})) == 4
