"""The gateway's rules with a scripted Triton: who is let in, what is bounded, and what each failure becomes."""

from __future__ import annotations

import base64
import io
import ipaddress
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import grpc
import pytest
from PIL import Image
from starlette.testclient import TestClient

from helpers.scripted_triton import scripted_triton
from nudenet_tools.gateway import app, keys
from nudenet_tools.gateway.settings import Limits, Settings

JPEG = b"\xff\xd8\xff"
RAW = {"content-type": "image/jpeg"}


@contextmanager
def gateway(behave=lambda number, context: None, urls=(), **options):
    with scripted_triton(behave) as triton:
        settings = Settings((*urls, triton.url), **options)
        with TestClient(app.create(settings), "http://127.0.0.1:8080", client=("192.0.2.1", 1)) as client:
            client.triton = triton
            yield client


def picture(number=7):
    """Goes through as a JPEG; the scripted server finds one face at x1 = `number` in it."""
    return JPEG + b"picture" + str(number).encode()


def code(response):
    return response.status_code, response.json()["error"]["code"]


def test_every_way_to_send_pictures_gives_the_same_answer():
    text = base64.b64encode(picture()).decode()
    with gateway() as client:
        answers = [
            client.post("/v1/detect", content=picture(), headers=RAW),
            client.post("/v1/detect", content=picture()),
            client.post("/v1/detect", json={"image": text}),
            client.post("/v1/detect", json={"images": [text]}),
            client.post("/v1/detect", files={"anything": (None, picture())} | {"f": ("a.jpg", picture())}),
        ]
        assert [answer.status_code for answer in answers[:4]] == [200] * 4
        assert [answer.json() for answer in answers[:4]] == [answers[0].json()] * 4
        (found,) = answers[0].json()["pictures"]
        assert found["detections"] == [{"label": "FACE_MALE", "class_id": 12, "confidence": 0.5, "box": [7, 0, 10, 10]}]
        several = client.post("/v1/detect", files=[("a", ("1.jpg", picture(1))), ("a", ("2.jpg", picture(2)))]).json()
        assert [(one["name"], one["detections"][0]["box"][0]) for one in several["pictures"]] == [
            ("1.jpg", 1),
            ("2.jpg", 2),
        ]


def test_parameters_and_the_deadline_travel():
    with gateway() as client:
        client.post(
            "/v1/detect?confidence_threshold=0.5&classes=FACE_MALE&deadline_ms=3000", content=picture(), headers=RAW
        )
        client.post("/v1/moderate", content=picture(), headers=RAW)
        client.post("/v1/moderate?policy=mine", content=picture(), headers=RAW)
        sent = [{k: v.string_param for k, v in one.parameters.items()} for one in client.triton.requests]
        assert (sent[0]["confidence_threshold"], sent[0]["classes"]) == ("0.5", "FACE_MALE")
        assert [one.get("policy") for one in sent] == [None, "standard", "mine"]
        assert client.triton.seconds_left[0] < 4
        assert 4 < client.triton.seconds_left[1] < 11


@pytest.mark.parametrize(
    "query", ["confidence_threshold=2", "policy=No!", "deadline_ms=0", "confidence=0.5", "max_detections=x"]
)
def test_a_wrong_parameter_is_named(query):
    with gateway() as client:
        response = client.post(f"/v1/detect?{query}", content=picture(), headers=RAW)
        assert code(response) == (400, "invalid_parameter")
        assert query.partition("=")[0] in response.json()["error"]["message"]
        assert not client.triton.requests


def test_a_refused_picture_is_never_allowed():
    with gateway() as client:
        both = client.post("/v1/moderate", files=[("a", ("1", picture())), ("a", ("2", JPEG + b"x"))])
        assert both.status_code == 200
        assert both.json()["verdict"] == "error"
        assert [one["verdict"] for one in both.json()["pictures"]] == ["review", "error"]
        alone = client.post("/v1/moderate", content=JPEG + b"x", headers=RAW)
        assert (alone.status_code, alone.json()["verdict"]) == (422, "error")
        for path in ("/infer", "/v1/detect-images"):
            failed = client.post(path, files=[("f1", ("1", picture())), ("f1", ("2", JPEG + b"x"))])
            assert failed.status_code == 422
            assert "prediction" not in failed.text


def test_adapters_answer_in_the_others_formats():
    with gateway() as client:
        nudenet = client.post("/infer", files={"f1": ("a.jpg", picture())}).json()
        assert nudenet == {
            "prediction": [[{"class": "FACE_MALE", "score": 0.5, "box": [7, 0, 3, 10]}]],
            "success": True,
        }
        sent = [(f"image{i}", (f"{i}.png", picture(), "image/png")) for i in range(10)]  # as many as the original takes
        misskey = client.post("/v1/detect-images", files=sent).json()
        assert misskey["success"] is True
        assert len(misskey["result"]["results"]) == 10
        names = [("Neutral", 0.6), ("Porn", 0.4), ("Drawing", 0), ("Hentai", 0), ("Sexy", 0)]  # most probable first
        predictions = [{"className": name, "probability": value} for name, value in names]
        assert misskey["result"]["results"] == [{"success": True, "predictions": predictions}] * 10


@pytest.mark.parametrize(
    ("sent", "limits", "status", "code"),
    [
        ({"content": b"x", "headers": {"content-type": "text/plain"}}, Limits(), 415, "UNSUPPORTED_MEDIA_TYPE"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, Limits(), 400, "INVALID_REQUEST"),
        ({"files": {"a": ("a", JPEG + b"x")}}, Limits(), 422, "IMAGE_DECODE_FAILED"),
        ({"files": {"a": ("a", bytes(2000))}}, Limits(body_bytes=1000), 413, "REQUEST_TOO_LARGE"),
        ({"files": {"a": ("a", picture())}}, Limits(in_flight=0), 503, "MODEL_UNAVAILABLE"),
        ({"files": {"a": ("a", picture())}}, Limits(rate=0.001, burst=0), 429, "MODEL_UNAVAILABLE"),
    ],
)
def test_misskey_gets_failures_in_its_own_format(sent, limits, status, code):
    with gateway(limits=limits) as client:
        failed = client.post("/v1/detect-images", **sent)
        assert failed.status_code == status
        body = failed.json()
        assert (body["success"], body["error"]["code"]) == (False, code)
        assert set(body) == {"success", "error"}
        assert body["error"]["message"]


def test_keys_open_the_door_and_nothing_else_does(tmp_path):
    key = keys.new_key()
    path = tmp_path / "keys"
    path.write_text(keys.line(key, "backend"))
    with gateway(keys=path) as client:
        for headers in ({}, {"authorization": "Bearer x"}, {"authorization": f"Basic {key}"}, {"x-api-key": "x"}):
            response = client.post("/v1/detect", content=picture(), headers=RAW | headers)
            assert code(response) == (401, "unauthorized")
            assert response.headers["www-authenticate"] == "Bearer"
        for headers in ({"authorization": f"Bearer {key}"}, {"x-api-key": key}):
            assert client.post("/v1/detect", content=picture(), headers=RAW | headers).status_code == 200
        # Which of two keys counts, a proxy in front may see otherwise. Bytes beyond ASCII are nobody's key.
        bearer, other = ("authorization", f"Bearer {key}"), ("authorization", "Bearer x")
        strange = (b"authorization", "Bearer größer".encode())
        for pairs in ([bearer, other], [other, bearer], [bearer, bearer], [("x-api-key", key)] * 2, [strange]):
            assert code(client.post("/v1/detect", content=picture(), headers=pairs)) == (401, "unauthorized")
        assert client.get("/health/live").status_code == 200


@pytest.mark.parametrize(
    ("proxies", "forwarded", "limited"),
    [
        ("", ["198.51.100.1", "198.51.100.2"], True),  # nobody's word is taken for it
        ("192.0.2.0/24", ["198.51.100.1", "198.51.100.2"], False),
        ("192.0.2.0/24", ["1.1.1.1, 198.51.100.1", "2.2.2.2, 198.51.100.1"], True),  # the client's own claim
        ("192.0.2.0/24", ["x", "y"], True),
        ("192.0.2.0/24", ["1.1.1.1\n198.51.100.1", "2.2.2.2\n198.51.100.1"], True),  # the proxy's header is another one
        ("192.0.2.0/24", ["198.51.100.1, 192.0.2.7", "198.51.100.2, 192.0.2.7"], False),  # two known proxies
    ],
)
def test_rates_are_those_of_the_address_that_a_known_proxy_saw(proxies, forwarded, limited):
    known = tuple(ipaddress.ip_network(text) for text in proxies.split() if text)
    with gateway(proxies=known, limits=Limits(rate=0.001, burst=1)) as client:
        first, second = (
            client.post(
                "/v1/detect", content=picture(), headers=[("x-forwarded-for", line) for line in text.splitlines()]
            )
            for text in forwarded
        )
        assert first.status_code == 200
        assert second.status_code == (429 if limited else 200)
        if limited:
            assert int(second.headers["retry-after"]) > 100


def test_bodies_are_bounded_while_they_come():
    def chunks():  # without Content-Length
        for _ in range(20):
            yield bytes(10_000)

    limits = Limits(body_bytes=100_000, pictures=2, picture_bytes=50_000)
    with gateway(limits=limits) as client:
        assert code(client.post("/v1/detect", content=chunks(), headers=RAW)) == (413, "too_large")
        assert code(client.post("/v1/detect", content=bytes(100_001), headers=RAW)) == (413, "too_large")
        large = client.post("/v1/detect", content=JPEG + bytes(50_000), headers=RAW)
        assert large.status_code == 422
        assert "50003 bytes, the limit is 50000" in large.json()["pictures"][0]["error"]
        three = [("a", (str(i), picture(i))) for i in range(3)]
        assert client.post("/v1/detect", files=three).status_code in (400, 413)
        assert code(client.post("/v1/detect", json={"images": [base64.b64encode(picture()).decode()] * 3})) == (
            413,
            "too_many_pictures",
        )
        assert not client.triton.requests


MULTIPART, END = "multipart/form-data; boundary=b", b"--b--\r\n"


def part(disposition):
    return b"--b\r\nContent-Disposition: form-data; " + disposition + b"\r\n\r\n" + picture() + b"\r\n"


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        (b"", "image/jpeg", (400, "no_picture")),
        (b"x", "text/plain", (415, "unsupported_media_type")),
        (b"{", "application/json", (400, "invalid_json")),
        (b"{}", "application/json", (400, "invalid_json")),
        (b'{"image": 1}', "application/json", (400, "invalid_json")),
        (b'{"image": "", "images": []}', "application/json", (400, "invalid_json")),
        (b'{"images": []}', "application/json", (400, "no_picture")),
        (b'{"image": "", "url": "http://example.org"}', "application/json", (400, "invalid_json")),
        (b'{"images": [' + b"[" * 100_000, "application/json", (400, "invalid_json")),
        (b'{"image": "\\ud800"}', "application/json", (400, "invalid_json")),
        (b"x", "multipart/form-data", (400, "invalid_multipart")),
        (b"x", "multipart/form-data; boundary=", (400, "invalid_multipart")),
        (b"x", f"multipart/form-data; boundary={'b' * 71}", (400, "invalid_multipart")),
        (b"x", MULTIPART, (400, "invalid_multipart")),
        (part(b"name=a") + END, MULTIPART, (400, "invalid_multipart")),  # no file
        (part(b"filename=a") + END, MULTIPART, (400, "invalid_multipart")),  # no name
        (part(b"name=a; filename=a") * 1000 + END, MULTIPART, (413, "too_many_pictures")),
        (part(b"name=a; filename=a") + part(b"name=a") * 1000 + END, MULTIPART, (400, "invalid_multipart")),
        # What the parser has not seen the end of it leaves out: one picture would be judged, the other one not.
        (part(b"name=a; filename=a") + part(b"name=a; filename=b"), MULTIPART, (400, "invalid_multipart")),
        (part(b"name=a; filename=a") + part(b"name=a; filename=b")[:-5], MULTIPART, (400, "invalid_multipart")),
    ],
)
def test_malformed_bodies_are_refused(body, kind, expected):
    with gateway() as client:
        assert code(client.post("/v1/detect", content=body, headers={"content-type": kind})) == expected
        assert not client.triton.requests


@pytest.mark.parametrize("end", [END, END[:-2], END + b"epilogue"])
def test_multipart_may_end_in_all_ways_of_its_standard(end):
    with gateway() as client:
        body = part(b"name=a; filename=a") + end
        assert client.post("/v1/detect", content=body, headers={"content-type": MULTIPART}).status_code == 200


def test_a_compressed_body_is_not_looked_into():
    with gateway() as client:
        for value, status in (("gzip", 415), ("br", 415), ("identity, gzip", 415), ("identity", 200)):
            headers = RAW | {"content-encoding": value}
            assert client.post("/v1/detect", content=picture(), headers=headers).status_code == status


@pytest.mark.parametrize(
    ("length", "status"), [("9" * 5000, 413), ("0" * 5000 + "1", 200), ("\u00b2", 413), ("-1", 413)]
)
def test_any_content_length_has_an_answer(length, status):
    with gateway() as client:
        headers = [(b"content-length", length.encode("latin-1"))]
        assert client.post("/v1/detect", content=iter([picture()]), headers=headers).status_code == status


def test_no_path_is_redirected():
    """A redirect has the scheme of this process: behind a proxy that encrypts, http:// and the key in the clear."""
    with gateway() as client:
        answer = client.post("/v1/detect/", content=picture(), headers=RAW, follow_redirects=False)
        assert answer.status_code == 404
        assert "location" not in answer.headers


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (grpc.StatusCode.UNAVAILABLE, (503, "unavailable")),
        (grpc.StatusCode.INVALID_ARGUMENT, (400, "invalid_request")),
        (grpc.StatusCode.INTERNAL, (502, "server_failed")),
        (grpc.StatusCode.UNAUTHENTICATED, (502, "server_failed")),
    ],
)
def test_failures_of_the_server_become_http(status, expected):
    with gateway(lambda number, context: context.abort(status, "as told")) as client:
        response = client.post("/v1/moderate", content=picture(), headers=RAW)
        assert code(response) == expected
        assert ("retry-after" in response.headers) == (expected[0] == 503)


def test_no_answer_within_the_deadline_is_504():
    with gateway(lambda number, context: time.sleep(1)) as client:
        response = client.post("/v1/detect?deadline_ms=100", content=picture(), headers=RAW)
        assert code(response) == (504, "deadline_exceeded")


def test_no_conversion_within_the_deadline_is_504():
    """Not the picture's fault: 422 would say so."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "PNG")
    with gateway() as client:  # whose process for conversions has to start
        assert code(client.post("/v1/detect?deadline_ms=50", content=file.getvalue())) == (504, "deadline_exceeded")


def test_whether_the_key_file_is_in_use_is_known_without_requests(tmp_path):
    path = tmp_path / "keys"
    path.write_text(keys.line(keys.new_key(), "a"))
    metrics = app.create(Settings(keys=path)).state.gateway.metrics
    assert "nudenet_gateway_key_file_ok 1.0" in metrics.exposition()
    path.write_text("a mistake")
    assert "nudenet_gateway_key_file_ok 0.0" in metrics.exposition()
    assert "key_file" not in app.create(Settings()).state.gateway.metrics.exposition()


def test_a_server_that_is_away_hands_over_to_the_next():
    with gateway(urls=("127.0.0.1:9",)) as client:
        answers = [client.post("/v1/detect", content=picture(), headers=RAW).status_code for _ in range(4)]
        assert answers == [200] * 4


def test_too_many_requests_at_work_are_refused():
    with gateway(limits=replace(Limits(), in_flight=0)) as client:
        response = client.post("/v1/detect", content=picture(), headers=RAW)
        assert code(response) == (503, "busy")
        assert response.headers["retry-after"] == "1"


def test_one_client_leaves_places_for_the_others():
    known = (ipaddress.ip_network("192.0.2.0/24"),)
    held = threading.Event()
    with gateway(lambda number, context: held.wait(20), proxies=known, limits=replace(Limits(), in_flight=4)) as client:

        def ask(address):
            return client.post("/v1/detect", content=picture(), headers=RAW | {"x-forwarded-for": address})

        with ThreadPoolExecutor(5) as threads:
            slow = [threads.submit(ask, "198.51.100.1") for _ in range(3)]
            while len(client.triton.requests) < len(slow):
                time.sleep(0.01)
            refused = ask("198.51.100.1")
            assert code(refused) == (503, "busy")
            assert "3 of your requests" in refused.json()["error"]["message"]
            other = threads.submit(ask, "198.51.100.2")
            while len(client.triton.requests) < len(slow) + 1:
                time.sleep(0.01)
            assert "4 requests" in ask("198.51.100.3").json()["error"]["message"]
            held.set()
            assert [one.result().status_code for one in (*slow, other)] == [200] * 4
        assert ask("198.51.100.1").status_code == 200


def test_documentation_is_closed_unless_asked_for():
    with gateway() as client:
        assert client.get("/docs").status_code == client.get("/openapi.json").status_code == 404
        assert client.get("/v1/detect").status_code == 405
        assert client.get("/health/live", headers={"host": "example.org"}).status_code == 400
        assert client.get("/health/live", headers={"host": "[::1]:8080"}).status_code == 200
    with gateway(host="127.0.0.2") as client:
        assert client.get("/health/live", headers={"host": "127.0.0.2:8080"}).status_code == 200
    with gateway(docs=True) as client:
        assert client.get("/docs").status_code == 200
        assert client.get("/openapi.json").json()["openapi"].startswith("3.1")
