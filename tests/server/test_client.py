"""The Python client against the real server."""

import asyncio

import numpy as np
import pytest
from PIL import Image

from helpers.scripted_triton import certificate
from nudenet_client import AsyncClient, Client, Parameters, PictureError, RequestRefused, ServerUnavailable, Tls
from nudenet_client.pictures import upright_pixels
from nudenet_tools.server.process import Options, Ports, Server


@pytest.fixture(params=["grpc", "http"])
def client(request, server):
    url = server.grpc_url if request.param == "grpc" else server.http_url
    with Client(url, protocol=request.param) as connected:
        yield connected


def test_every_kind_of_picture_is_answered(client, astronaut, tmp_path):
    pixels = upright_pixels(astronaut)
    (tmp_path / "a.jpg").write_bytes(astronaut)
    Image.fromarray(pixels).save(tmp_path / "a.png", compress_level=1)
    expected = client.detect(astronaut)
    assert (expected.width, expected.height, expected.labels) == (1280, 720, ("FACE_FEMALE",))
    assert expected[0].confidence > 0.8
    for picture in (tmp_path / "a.jpg", tmp_path / "a.png", pixels, Image.fromarray(pixels)):
        found = client.detect(picture)
        assert found.labels == expected.labels
        assert np.abs(found.boxes - expected.boxes).max() < 4  # pixels of 1280; re-encoding moves a box a little


def test_parameters_reach_the_model(client, astronaut):
    many = client.detect(astronaut, Parameters(confidence_threshold=0.01, iou_threshold=1))
    assert len(many) > 3
    assert len(client.detect(astronaut, Parameters(confidence_threshold=0.01, iou_threshold=1, max_detections=3))) == 3
    assert set(client.detect(astronaut, Parameters(0.01, 1, classes="FACE_MALE")).labels) <= {"FACE_MALE"}
    assert len(client.detect(astronaut, Parameters(confidence_threshold=0.9999))) == 0


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        (Parameters(confidence_threshold=3), r"confidence_threshold must be in \[0,1\], got 3"),
        (Parameters(classes=["FACE"]), "'FACE'; known: .*FACE_MALE"),
    ],
)
def test_a_refused_request_says_why(client, astronaut, parameters, reason):
    with pytest.raises(RequestRefused, match=reason):
        client.detect(astronaut, parameters)
    with pytest.raises(RequestRefused, match=reason):
        list(client.detect_many([astronaut] * 2, parameters, on_error="report"))


def test_bad_pictures_do_not_cost_their_neighbours(client, astronaut):
    batch = [astronaut, b"\x89PNG\r\n\x1a\n123", astronaut[:5000], b"", astronaut]
    answers = list(client.detect_many(batch, on_error="report"))
    assert [answer.error is None for answer in answers] == [True, False, False, False, True]
    assert "PNG" in answers[1].error
    assert answers[0].to_json("x") == answers[4].to_json("x") == client.detect(astronaut).to_json("x")
    with pytest.raises(PictureError, match="PNG") as caught:
        list(client.detect_many(batch))
    assert caught.value.index == 1


def test_asyncio_answers_the_same(server, astronaut):
    async def ask():
        async with AsyncClient(server.grpc_url) as client:
            return [answer async for answer in client.detect_many([astronaut] * 20)]

    with Client(server.grpc_url) as client:
        expected = client.detect(astronaut).to_json("x")
    answers = asyncio.run(ask())
    assert [answer.to_json("x") for answer in answers] == [expected] * 20


@pytest.mark.needs("openssl")
def test_an_encrypted_server(tmp_path, astronaut):
    cert, key = certificate(tmp_path)
    encrypt = ("--grpc-use-ssl=1", f"--grpc-server-cert={cert}", f"--grpc-server-key={key}")
    with Server(Options(ports=Ports.free(), arguments=encrypt)) as server:
        with Client(server.grpc_url, tls=Tls(cert)) as client:
            assert client.detect(astronaut).labels == ("FACE_FEMALE",)
        with Client(server.grpc_url, retries=0) as client, pytest.raises(ServerUnavailable):
            client.detect(astronaut)
