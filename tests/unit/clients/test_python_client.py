"""The Python client, as far as it needs no model: pictures in, answers out, retries, deadlines, order, TLS."""

import asyncio
import http.server
import itertools
import json
import ssl
import threading
import time
from contextlib import contextmanager

import grpc
import numpy as np
import pytest

from conftest import DATA
from helpers.scripted_triton import certificate, pictures, scripted_triton
from nudenet_client import (
    AccessRefused,
    AsyncClient,
    Client,
    ClientError,
    DeadlineExceeded,
    Detections,
    Parameters,
    PictureError,
    RequestRefused,
    ServerUnavailable,
    Tls,
)


def calm(number, context):
    """Answer at once."""


def failing(times, code):
    """Refuse the first `times` requests."""

    def behave(number, context):
        if number < times:
            context.abort(code, "as told")

    return behave


class _Blocking:
    """`AsyncClient` behind the methods of `Client`, so that one test tries both."""

    def __init__(self, url, **options):
        self._url, self._options = url, options

    def detect(self, *arguments, **options):
        async def call():
            async with AsyncClient(self._url, **self._options) as client:
                return await client.detect(*arguments, **options)

        return asyncio.run(call())

    def detect_many(self, *arguments, **options):
        async def call():
            async with AsyncClient(self._url, **self._options) as client:
                return [answer async for answer in client.detect_many(*arguments, **options)]

        return iter(asyncio.run(call()))


@pytest.fixture(params=[Client, _Blocking], ids=["blocking", "asyncio"])
def client_class(request):
    return request.param


# --- detections ---


def test_json_has_the_documented_form():
    rows = np.array([[1.5, 2, 30, 40.25, 12, 0.5]], np.float32)
    found = Detections.from_rows(rows, ["FACE_MALE"], (100, 50))
    assert json.loads(found.to_json("ä.jpg")) == {
        "image": "ä.jpg",
        "width": 100,
        "height": 50,
        "detections": [{"label": "FACE_MALE", "class_id": 12, "confidence": 0.5, "box": [1.5, 2.0, 30.0, 40.25]}],
    }
    assert json.loads(Detections.failed("broken").to_json("b")) == {"image": "b", "error": "broken"}


def test_detections_are_a_sequence_and_convert_to_supervision():
    rows = np.array([[0, 0, 4, 4, 12, 0.9], [1, 1, 3, 3, 1, 0.5]], np.float32)
    found = Detections.from_rows(rows, ["FACE_MALE", "FACE_FEMALE"], (8, 8))
    assert [d.label for d in found] == ["FACE_MALE", "FACE_FEMALE"]
    assert found[-1].box == (1, 1, 3, 3)
    assert [d.class_id for d in found.only({"FACE_FEMALE"})] == [1]
    converted = found.to_supervision()
    assert converted.xyxy.tolist() == rows[:, :4].tolist()
    assert converted.class_id.tolist() == [12, 1]
    assert converted["class_name"].tolist() == ["FACE_MALE", "FACE_FEMALE"]


# --- requests ---


def test_model_parameters_priority_and_deadline_travel(client_class):
    parameters = Parameters(0.5, 0.25, 7, ["FACE_MALE", "FACE_FEMALE"], priority=2)
    with scripted_triton(calm) as server:
        client_class(server.url, model="nudenet_bulk", deadline=20).detect(b"picture1", parameters)
    assert server.requests[0].model_name == "nudenet_bulk"
    sent = server.requests[0].parameters
    assert sent["confidence_threshold"].string_param == "0.5"
    assert sent["iou_threshold"].string_param == "0.25"
    assert sent["max_detections"].string_param == "7"
    assert sent["classes"].string_param == "FACE_MALE,FACE_FEMALE"
    assert sent["priority"].uint64_param == 2
    assert 0 < sent["timeout"].int64_param <= 20_000_000 / 3  # a third of the deadline
    assert 10 < server.seconds_left[0] <= 21  # gRPC rounds up what is left


def test_what_is_not_asked_for_is_not_sent(client_class):
    with scripted_triton(calm) as server:
        client_class(server.url).detect(b"picture1")
    assert set(server.requests[0].parameters) == {"on_error", "timeout"}
    assert server.requests[0].model_name == "nudenet"


def test_unavailable_is_tried_again(client_class):
    with scripted_triton(failing(2, grpc.StatusCode.UNAVAILABLE)) as server:
        assert client_class(server.url, retries=2).detect(b"picture1").labels == ("FACE_MALE",)
    assert len(server.requests) == 3


def test_retries_end(client_class):
    with (
        scripted_triton(failing(9, grpc.StatusCode.UNAVAILABLE)) as server,
        pytest.raises(ServerUnavailable, match="as told"),
    ):
        client_class(server.url, retries=1).detect(b"picture1")
    assert len(server.requests) == 2


def test_retries_end_at_the_deadline(client_class):
    with (
        scripted_triton(failing(10**6, grpc.StatusCode.UNAVAILABLE)) as server,
        pytest.raises((ServerUnavailable, DeadlineExceeded)),
    ):
        client_class(server.url, retries=10**6, deadline=0.5).detect(b"picture1")
    assert 1 <= len(server.requests) <= 5  # pauses of 50, 100, 200 ms at least


# The same table is tested against the Node.js client.
RETRIES = json.loads((DATA / "retries.json").read_text())


@pytest.mark.parametrize("row", RETRIES, ids=lambda row: f"{row.get('grpc')} {row.get('http')} {row['message'][:20]}")
def test_what_is_tried_again_stands_in_one_table(client_class, row):
    if "grpc" in row:

        def behave(number, context):
            context.abort(grpc.StatusCode[row["grpc"]], row["message"])

        with scripted_triton(behave) as server, pytest.raises(ClientError) as caught:
            client_class(server.url, retries=1).detect(b"picture1")
        assert (type(caught.value).__name__, len(server.requests)) == (row["error"], 1 + row["retried"])
        assert row["message"] in str(caught.value)
    if "http" in row:
        with http_server([row["http"]] * 2, message=row["message"]) as url, pytest.raises(ClientError) as caught:
            Client(f"http://{url}/", protocol="http", retries=1).detect(b"picture1")
        assert type(caught.value).__name__ == row["error"]


def test_who_may_not_ask_learns_where(client_class):
    def behave(number, context):
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "no key")

    with scripted_triton(behave) as server:
        with pytest.raises(AccessRefused, match=f"^{server.url}: .*no key"):
            client_class(server.url).detect(b"picture1")
        with pytest.raises(RequestRefused):  # and not once for each picture
            list(client_class(server.url, concurrency=1).detect_many([b"picture1"] * 20, on_error="report"))
    assert len(server.requests) < 4


def test_classes_may_be_an_iterator(client_class):
    asked = Parameters(classes=(name for name in ("FACE_MALE", "FACE_FEMALE")))
    with scripted_triton(calm) as server:
        list(client_class(server.url).detect_many([b"picture1"] * 3, asked, batch_size=1))
    assert {one.parameters["classes"].string_param for one in server.requests} == {"FACE_MALE,FACE_FEMALE"}


# --- wrong answers ---


def output(answer, name, raw, shape=None, datatype=None):
    """Put other bytes, another shape or type in the place of an output's."""
    names = [one.name for one in answer.outputs]
    at = names.index(name)
    answer.raw_output_contents[at] = raw
    if shape is not None:
        answer.outputs[at].shape[:] = shape
    if datatype is not None:
        answer.outputs[at].datatype = datatype


def nothing(answer):
    answer.ClearField("outputs")
    answer.ClearField("raw_output_contents")


WRONG = {
    "no outputs": (nothing, "there is no detections"),
    "no picture": (lambda one: output(one, "detections", b"", [0, 1, 6]), r"detections is float32 \[0, 1, 6\]"),
    "seven columns": (lambda one: output(one, "detections", bytes(28), [1, 1, 7]), r"expected \[1,K,6\]"),
    "text for numbers": (lambda one: output(one, "detections", bytes(4), [1], "BYTES"), "detections is object"),
    "too few bytes": (lambda one: output(one, "detections", bytes(23)), "not an answer"),
    "more than there are": (lambda one: output(one, "num_detections", (99).to_bytes(4, "little")), "num_detections"),
    "less than none": (lambda one: output(one, "num_detections", b"\xfe\xff\xff\xff"), "num_detections"),
    "text that is none": (lambda one: output(one, "labels", b"\2\0\0\0\xff\xfe"), "utf-8"),
    "text cut short": (lambda one: output(one, "labels", b"\x20\0\0\0ab"), "not an answer"),
    "reasons that are no JSON": (lambda one: output(one, "reasons", b"\1\0\0\0{"), "not an answer"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_answer_is_the_servers_error(client_class, change, message):
    with scripted_triton(calm, change=change) as server, pytest.raises(ClientError, match=message) as caught:
        client_class(server.url).detect(b"picture1", Parameters(policy="default"))
    assert str(caught.value).startswith(f"{server.url}: not an answer of nudenet: ")


def test_a_silent_server_meets_the_deadline(client_class):
    with scripted_triton(lambda number, context: time.sleep(0.5)) as server, pytest.raises(DeadlineExceeded):
        client_class(server.url, deadline=0.1).detect(b"picture1")
    assert len(server.requests) == 1


def test_nobody_there(client_class):
    with pytest.raises(ServerUnavailable, match=r"127.0.0.1:1\b"):
        client_class("127.0.0.1:1", retries=0).detect(b"picture1")
    with pytest.raises(ServerUnavailable, match=r"127.0.0.1:1\b"):
        Client("127.0.0.1:1", protocol="http", retries=0).detect(b"picture1")


# --- many pictures ---


def test_answers_come_in_order_from_full_batches(client_class):
    def uneven(number, context):
        time.sleep(0.1 if number == 0 else 0)  # the first batch is overtaken

    with scripted_triton(uneven) as server:
        names = [b"picture%d" % i for i in range(35)]
        answers = list(client_class(server.url).detect_many(names))
    assert [answer[0].box[0] for answer in answers] == list(range(35))
    assert sorted(len(pictures(request)) for request in server.requests) == [3, 8, 8, 8, 8]


def test_concurrency_is_reached_and_bounded(client_class):
    together = threading.Barrier(3, timeout=10)
    with scripted_triton(lambda number, context: together.wait()) as server:
        names = [b"picture%d" % i for i in range(12)]
        answers = list(client_class(server.url, concurrency=3).detect_many(names, batch_size=2))
    assert len(answers) == 12
    assert server.busiest == 3


def test_a_bad_picture_is_reported_in_its_place(client_class):
    mixed = [b"picture1", b"broken", "/no/such/file", b"picture2"]
    with scripted_triton(calm) as server:
        answers = list(client_class(server.url).detect_many(mixed, on_error="report"))
    assert [len(answer) for answer in answers] == [1, 0, 0, 1]
    assert answers[1].error == "not a picture"
    assert "No such file" in answers[2].error
    assert answers[0].error is None


def test_a_bad_picture_raises_with_its_place(client_class):
    mixed = [*(b"picture%d" % i for i in range(10)), b"broken"]
    with scripted_triton(calm) as server:
        client = client_class(server.url)
        with pytest.raises(PictureError, match="not a picture") as caught:
            list(client.detect_many(mixed))
        with pytest.raises(PictureError):
            client.detect(b"broken")
    assert caught.value.index == 10


def test_one_failed_request_costs_only_its_own_pictures(client_class):
    names = [b"picture%d" % i for i in range(6)]
    with scripted_triton(failing(1, grpc.StatusCode.INTERNAL)) as server:
        client = client_class(server.url, concurrency=1)
        answers = list(client.detect_many(names, batch_size=2, on_error="report"))
    assert ["as told" in (answer.error or "") for answer in answers] == [True, True, False, False, False, False]


def test_pictures_are_read_as_they_are_needed():
    read = itertools.count()
    endless = (b"picture%d" % i for i in read)
    with scripted_triton(calm) as server, Client(server.url, concurrency=2) as client:
        answers = client.detect_many(endless, batch_size=4)
        for _ in range(5):
            next(answers)
        answers.close()
    assert next(read) <= 5 + 3 * 4


def test_settings_that_cannot_work_are_refused(client_class):
    for options in ({"deadline": 0}, {"retries": -1}, {"concurrency": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            list(client_class("127.0.0.1:1", **options).detect_many([]))
    with pytest.raises(ValueError, match="batch_size"):
        list(client_class("127.0.0.1:1").detect_many([], batch_size=9))


# --- connections ---


def test_round_robin_uses_every_address(client_class):
    with scripted_triton(calm) as one, scripted_triton(calm) as other:
        client = client_class(f"ipv4:{one.url},{other.url}", round_robin=True, concurrency=1)
        names = [b"picture%d" % i for i in range(20)]
        assert len(list(client.detect_many(names, batch_size=1))) == 20
    assert len(one.requests) >= 3
    assert len(other.requests) >= 3


@pytest.mark.needs("openssl")
def test_tls_needs_a_trusted_certificate(client_class, tmp_path):
    cert, key = certificate(tmp_path)
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), cert.read_bytes())])
    with scripted_triton(calm, credentials) as server:
        assert len(client_class(server.url, tls=Tls(cert)).detect(b"picture1")) == 1
        with pytest.raises(ServerUnavailable):
            client_class(server.url, tls=Tls(), retries=0).detect(b"picture1")
        with pytest.raises(ServerUnavailable):
            client_class(server.url, retries=0).detect(b"picture1")
    with pytest.raises(ClientError, match="no file"):
        client_class(server.url, tls=Tls(tmp_path / "none.pem")).detect(b"picture1")


@contextmanager
def http_server(statuses, credentials=None, message="as told"):
    """Answers its requests with these statuses and Triton's form of an error. Yields host and port."""
    left = iter(statuses)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps({"error": message}).encode()
            self.send_response(next(left))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        # A client that does not trust us hangs up.
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        if credentials is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*credentials)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_http_statuses_mean_what_grpc_codes_do():
    for status, kind in ((400, RequestRefused), (404, RequestRefused), (500, ClientError)):
        with http_server([status]) as url, pytest.raises(ClientError, match="as told") as caught:
            Client(url, protocol="http").detect(b"picture1")
        assert type(caught.value) is kind
    with http_server([503, 503, 400]) as url, pytest.raises(RequestRefused):  # unavailable twice, and asked again
        Client(url, protocol="http", retries=2).detect(b"picture1")
    with http_server([503, 503, 400]) as url, pytest.raises(ServerUnavailable, match="as told"):
        Client(url, protocol="http", retries=1).detect(b"picture1")


@contextmanager
def raw_http_server(send):
    """Reads a request and lets `send` write to the connection."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            send(self.wfile.write)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"Content-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>", "6 bytes of text/html"),
        (b"Inference-Header-Content-Length: x\r\nContent-Length: 2\r\n\r\n{}", "invalid literal"),
        (b"Inference-Header-Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", "not an answer"),
        (b"Inference-Header-Content-Length: 9\r\nContent-Length: 2\r\n\r\n[]", "not an answer"),
        (b"Inference-Header-Content-Length: 1\r\nContent-Length: 1\r\n\r\n{", "not an answer"),
    ],
)
def test_an_http_answer_of_somebody_else(answer, message):
    with (
        raw_http_server(lambda write: write(b"HTTP/1.1 200 OK\r\n" + answer)) as url,
        pytest.raises(ClientError, match=message) as caught,
    ):
        Client(url, protocol="http").detect(b"picture1")
    assert str(caught.value).startswith(f"{url}: not an answer of nudenet: ")


@pytest.mark.parametrize(
    "begin", [b"", b"Content-Length: 9999\r\n\r\n", b"Connection: close\r\n\r\n"], ids=["headers", "body", "closing"]
)
def test_an_http_answer_that_trickles_meets_the_deadline(begin):
    gone = threading.Event()

    def trickle(write):
        try:
            write(b"HTTP/1.1 200 OK\r\n" + begin)
            for _ in range(600):
                write(b"a")
                time.sleep(0.05)
        except OSError:  # the client has hung up
            gone.set()

    with raw_http_server(trickle) as url, pytest.raises(DeadlineExceeded):
        Client(url, protocol="http", deadline=0.5).detect(b"picture1")
    assert gone.wait(20)


@pytest.mark.parametrize("half", ["private_key", "certificate_chain"])
def test_half_of_a_client_certificate_is_refused(client_class, half, tmp_path):
    file = tmp_path / "half.pem"
    file.write_text("")
    for options in ({}, {"protocol": "http"}) if client_class is Client else ({},):
        with pytest.raises(ClientError, match="belong together"):
            client_class("127.0.0.1:1", tls=Tls(**{half: file}), **options).detect(b"picture1")


def test_https_with_a_file_that_is_no_certificate(tmp_path):
    file = tmp_path / "text.pem"
    file.write_text("no certificate")
    with pytest.raises(ClientError, match=r"text\.pem.* cannot be used"):
        Client("127.0.0.1:1", protocol="http", tls=Tls(file))


@pytest.mark.needs("openssl")
def test_https_needs_a_trusted_certificate(tmp_path):
    credentials = certificate(tmp_path)
    with http_server([400], credentials) as url:
        with pytest.raises(ServerUnavailable, match="certificate"):
            Client(url, protocol="http", tls=Tls(), retries=0).detect(b"picture1")
        with pytest.raises(RequestRefused, match="as told"):
            Client(url, protocol="http", tls=Tls(credentials[0])).detect(b"picture1")
