"""The gateway as a process in front of the real server: answers as over gRPC, the hostile corpus, its own OpenAPI."""

from __future__ import annotations

import io
import json
import os
import subprocess
from collections.abc import Iterator

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from PIL import Image
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import positive_data_acceptance

from helpers import gateways, hostile
from nudenet_client import Client, Parameters


@pytest.fixture(scope="module")
def gateway(server) -> Iterator[str]:
    """Its address. It may answer more requests a second than a client may send by default."""
    with gateways.gateway(server.grpc_url, "--docs", "--rate=10000", "--burst=10000") as address:
        yield address


def test_answers_are_those_of_grpc(gateway, server, astronaut, data_folder):
    files = [data_folder / name for name in ("astronaut_720p.jpg", "coffee.jpg", "cat.jpg")]
    parameters = Parameters(confidence_threshold=0.1, policy="strict")
    with Client(server.grpc_url) as client:
        expected = [one.to_dict("") for one in client.detect_many(files, parameters)]
    sent = [("file", (path.name, path.read_bytes())) for path in files]
    answer = requests.post(f"{gateway}/v1/detect?confidence_threshold=0.1&policy=strict", files=sent, timeout=30).json()
    for found, wanted, path in zip(answer["pictures"], expected, files, strict=True):
        assert found == {"name": path.name} | {key: value for key, value in wanted.items() if key != "image"}


@pytest.mark.needs("curl")
def test_a_verdict_in_one_line_of_curl(gateway, data_folder):
    picture = data_folder / "astronaut_720p.jpg"
    done = subprocess.run(
        ["curl", "-sS", "-F", f"file=@{picture}", f"{gateway}/v1/moderate"], capture_output=True, check=True, timeout=30
    )
    answer = json.loads(done.stdout)
    assert answer["verdict"] == "allow"
    assert answer["pictures"][0]["reasons"]["policy"] == "standard"


def test_other_formats_and_animations(gateway, astronaut):
    with Image.open(io.BytesIO(astronaut)) as opened:
        small = opened.resize((640, 360))
    for kind in ("PNG", "WEBP", "AVIF", "GIF"):
        target = io.BytesIO()
        small.save(target, kind)
        answer = requests.post(
            f"{gateway}/v1/detect", data=target.getvalue(), headers={"Content-Type": "image/x"}, timeout=30
        )
        (found,) = answer.json()["pictures"]
        assert [one["label"] for one in found["detections"]] == ["FACE_FEMALE"], kind
    target = io.BytesIO()
    Image.new("RGB", small.size).save(target, "WEBP", save_all=True, append_images=[small], quality=90)
    (found,) = requests.post(f"{gateway}/v1/moderate", data=target.getvalue(), timeout=30).json()["pictures"]
    assert [len(frame["detections"]) for frame in found["frames"]] == [0, 1]
    assert found["verdict"] == "allow"


def test_the_hostile_corpus_is_refused_and_leaves_it_working(gateway, astronaut):
    for name, (data, _, _) in hostile.bad_pictures(astronaut).items():
        if name in ("png", "gif", "webp", "bmp", "tiff"):  # here they are welcome
            continue
        answer = requests.post(f"{gateway}/v1/moderate", data=data, headers={"Content-Type": "image/jpeg"}, timeout=60)
        if not data:
            assert answer.status_code == 400
            continue
        body = answer.json()
        assert (answer.status_code, body["verdict"]) == (422, "error"), name
        assert body["pictures"][0]["error"], name
    assert requests.post(f"{gateway}/v1/moderate", data=astronaut, timeout=30).json()["verdict"] == "allow"


def test_it_does_what_its_openapi_says(gateway):
    operations = list(schemathesis.openapi.from_url(f"{gateway}/openapi.json").get_all_operations())
    assert len(operations) == 6
    for operation in operations:

        @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.ok().as_strategy())
        def check(case):
            # No schema says which bytes are a picture; 504 is right for a deadline of 1 ms.
            excluded = [positive_data_acceptance, not_a_server_error]
            assert case.call_and_validate(timeout=60, excluded_checks=excluded).status_code not in (500, 502)

        check()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_another_address_needs_keys(host):
    done = subprocess.run(
        [*gateways.COMMAND, f"--host={host}"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "name a file of API keys with --keys" in done.stderr


def test_a_new_key_opens_what_its_line_closes(tmp_path, server, astronaut):
    file = tmp_path / "keys"
    command = [*gateways.COMMAND, "new-key", "backend", f"--keys={file}"]
    made = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert made.stdout.strip() not in file.read_text()
    with gateways.gateway(server.grpc_url, "--host=0.0.0.0", GATEWAY_KEYS=str(file)) as address:
        assert requests.post(f"{address}/v1/moderate", data=astronaut, timeout=30).status_code == 401
        headers = {"Authorization": f"Bearer {made.stdout.strip()}"}
        assert requests.post(f"{address}/v1/moderate", data=astronaut, headers=headers, timeout=30).status_code == 200
        assert requests.get(f"{address}/docs", timeout=30).status_code == 404


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--url=127.0.0.1"], 2, "expected HOST:PORT"),
        (["--policy=No!"], 2, "'No!' is no policy's name"),
        (["--port=TAKEN"], 1, "port TAKEN: Address already in use; choose another one with --port"),
        (["--metrics-port=TAKEN"], 1, "port TAKEN: Address already in use; choose another one with --metrics-port"),
        (["--metrics-port=8080"], 1, "--port and --metrics-port are both 8080"),
        (["--proxy=10.0.0.1/8"], 2, "10.0.0.1/8 has host bits set"),
        (["new-key", "a b", "--keys=keys"], 1, "a name has 1 to 64 of"),
    ],
)
def test_wrong_options_are_named_at_once(server, arguments, status, message, tmp_path):
    taken = str(server.ports.http)
    command = [*gateways.COMMAND, *(argument.replace("TAKEN", taken) for argument in arguments)]
    environment = os.environ | {"COLUMNS": "200"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environment)
    assert done.returncode == status, done.stderr
    assert message.replace("TAKEN", taken) in done.stderr
    assert not (tmp_path / "keys").exists()
