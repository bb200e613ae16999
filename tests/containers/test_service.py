"""`docker compose up` of the cpu profile: answers, is closed and locked down, and replaces what is killed or hangs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import requests
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from container.shared_memory import PREFIX
from helpers import containers
from helpers.containers import Container, Service, wait_until
from nudenet_client import Client, ClientError, Tls

PICTURE = (Path(__file__).parents[1] / "data" / "astronaut_720p.jpg").read_bytes()
pytestmark = pytest.mark.timeout(600)  # images are built before the first test


def answers(service: Service, tls: Tls) -> bool:
    """Whether the proxy's client gets the face."""
    with Client(service.address, tls=tls, api_key=containers.API_KEY, retries=0, deadline=10) as client:
        return client.detect(PICTURE).labels == ("FACE_FEMALE",)


@pytest.fixture
def triton(service: Service, tls: Tls) -> Container:
    """The server's container, once it answers."""
    wait_until(lambda: answers(service, tls))
    return service.container("triton-cpu")


def test_a_picture_is_answered_and_the_canary_says_so(service: Service, triton: Container):
    code = "import urllib.request as r; print(r.urlopen('http://canary:9402/metrics', timeout=30).read().decode())"
    wait_until(lambda: 'nudenet_canary_success{target="triton:8001"} 1' in triton.python(code))


def test_nothing_inside_can_do_more_than_its_work(service: Service, triton: Container):
    code = """
import os
status = dict(line.split(":\\t") for line in open("/proc/1/status").read().splitlines() if ":\\t" in line)
writable = [path for path in ("/", "/opt/nudenet", "/etc", "/usr") if os.access(path, os.W_OK)]
print(os.getuid(), int(status["CapEff"], 16), int(status["CapBnd"], 16), status["NoNewPrivs"], writable)
"""
    assert triton.python(code) == "1000 0 0 1 []"
    for name in service.services:
        container = service.container(name)
        assert container.inspect(".HostConfig.ReadonlyRootfs") == "true"
        assert container.inspect(".HostConfig.CapDrop") == "[ALL]"
        published = container.inspect("json .HostConfig.PortBindings")
        assert (published == "{}") == (name != "proxy")
        assert "0.0.0.0" not in published


def test_the_proxy_refuses_plaintext_and_a_missing_key(service: Service, tls: Tls, triton: Container):
    image = grpcclient.InferInput("image", [1, 1], "BYTES")
    image.set_data_from_numpy(np.array([[PICTURE]], np.object_))
    with (
        grpcclient.InferenceServerClient(
            service.address, ssl=True, root_certificates=str(tls.root_certificates)
        ) as client,
        pytest.raises(InferenceServerException, match="api-key is missing") as caught,
    ):
        client.infer("nudenet", [image])
    assert caught.value.status() == "StatusCode.UNAUTHENTICATED"
    with (
        Client(service.address, api_key=containers.API_KEY, retries=0, deadline=10) as plain,
        pytest.raises(ClientError),
    ):
        plain.detect(PICTURE)


def test_tools_reach_the_proxy_with_the_key(service: Service, tls: Tls, triton: Container, tmp_path):
    picture, key = tmp_path / "astronaut.jpg", tmp_path / "key"
    picture.write_bytes(PICTURE)
    key.write_text(containers.API_KEY)
    way = ["--url", service.address, "--ca", str(tls.root_certificates), "--api-key-file", str(key)]
    result = subprocess.run(
        [sys.executable, containers.ROOT / "tools/detect.py", str(picture), "--json", *way],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert [one["label"] for one in json.loads(result.stdout)["detections"]] == ["FACE_FEMALE"], result.stderr


def test_the_gateway_answers_through_tls_with_a_key_and_refuses_without(service: Service, tls: Tls, triton: Container):
    def moderate(**headers: str) -> requests.Response:
        files = {"file": ("astronaut_720p.jpg", PICTURE)}
        url = f"{service.http_address}/v1/moderate"
        return requests.post(url, files=files, headers=headers, verify=str(tls.root_certificates), timeout=30)

    known = {"Authorization": f"Bearer {containers.GATEWAY_KEY}"}
    wait_until(lambda: moderate(**known).ok)
    answer = moderate(**known).json()
    assert answer["verdict"] == "allow" and answer["pictures"][0]["reasons"]["policy"] == "standard"
    assert [one["label"] for one in answer["pictures"][0]["detections"]] == ["FACE_FEMALE"]
    for headers in ({}, {"Authorization": f"Bearer {containers.API_KEY}"}):
        refused = moderate(**headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "unauthorized")
    for path in ("/metrics", "/docs", "/v2/health/ready"):
        missing = requests.get(service.http_address + path, verify=str(tls.root_certificates), timeout=30)
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "http_error")
    plain = requests.get(service.http_address.replace("https", "http"), timeout=30)
    assert plain.status_code == 400  # nginx: a plain request to a port with TLS


def test_administration_is_closed_inside_too(triton: Container):
    code = """
import http.client
for path in ("/v2/models/stats", "/v2/models/nudenet/config", "/v2/systemsharedmemory/status", "/v2/health/ready"):
    connection = http.client.HTTPConnection("127.0.0.1:8000")
    connection.request("GET", path)
    print(connection.getresponse().status, end=" ")
"""
    assert triton.python(code) == "403 403 403 200"


def test_the_bill_of_materials_lists_python_and_debian(triton: Container):
    listed = triton.python("import json; from container import sbom; print(json.dumps(sbom.document()))")
    names = {component["purl"].split("@")[0] for component in json.loads(listed)["components"]}
    assert {"pkg:pypi/nvidia-pytriton", "pkg:pypi/openvino", "pkg:deb/debian/libc6"} <= names


@pytest.mark.parametrize(
    ("what", "number", "said"),
    [
        ("nudenet_trt", signal.SIGKILL, "a Python process of nudenet_trt died"),
        ("tritonserver", signal.SIGSTOP, "the canary picture failed"),
    ],
)
def test_what_is_killed_or_hangs_is_replaced(
    service: Service, tls: Tls, triton: Container, what: str, number: signal.Signals, said: str
):
    before = triton.restarts()
    triton.kill(what, number)
    wait_until(lambda: triton.restarts() > before)
    wait_until(lambda: answers(service, tls))
    ending = [line for line in triton.log() if "ending, to be started again" in line]
    assert said in ending[-1]
    assert len(owners(triton)) == 1


def owners(triton: Container) -> set[str]:
    """Runs of the server that have something in /dev/shm."""
    return {name for name in triton.shared_memory() if name.startswith(PREFIX) and name.endswith(".owner")}


def test_what_a_killed_container_leaves_in_shared_memory_is_removed(service: Service, tls: Tls, triton: Container):
    (before,) = owners(triton)
    containers.docker("kill", triton.name)
    containers.docker("start", triton.name)
    wait_until(lambda: answers(service, tls))
    assert any("that an earlier run left in /dev/shm" in line for line in triton.log())
    (after,) = owners(triton)
    run = before.removesuffix(".owner")
    assert after != before and not any(name.startswith(run) for name in triton.shared_memory())
