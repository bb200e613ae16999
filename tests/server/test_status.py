"""tools/status.py against the real server: what a person and a program are told."""

import dataclasses
import http.server
import json
import re
import subprocess
import sys
import threading
import time
import urllib.request

import pytest
from typer.testing import CliRunner

import status
from container.repository import MODELS
from nudenet_client import Client, ClientError, Parameters, PictureError
from nudenet_steps.serving import package
from nudenet_tools import ROOT
from nudenet_tools.server.status import read_metrics, read_statistics


@pytest.fixture
def run(server, monkeypatch):
    """Runs tools/status.py with arguments; ports come from the environment, as with `make serve`."""
    monkeypatch.setenv("HTTP_PORT", str(server.ports.http))
    monkeypatch.setenv("METRICS_PORT", str(server.ports.metrics))
    return lambda *arguments: CliRunner().invoke(status.app, list(arguments))


def by_name(result):
    return {model["name"]: model for model in json.loads(result.stdout)["models"]}


def cells(screen, row):
    """What stands in one row of the table, split at the blanks."""
    (line,) = [line for line in screen.splitlines() if line.strip().startswith(row + " ")]
    return line.removeprefix(line[: line.index(row) + len(row)]).split()


def test_the_screen_fits_80_columns_and_counts_what_was_sent(run, server, astronaut, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    before = [int(text) for text in cells(run().stdout, "pictures")]
    with Client(server.grpc_url) as client:
        list(client.detect_many([astronaut] * 6, batch_size=3))
    result = run()
    assert result.exit_code == 0
    assert "…" not in result.stdout
    assert "health  ready" in result.stdout
    assert "Triton 2.51.0" in result.stdout
    assert cells(result.stdout, "state") == ["ready"] * 4
    assert [int(text) for text in cells(result.stdout, "pictures")] == [count + 6 for count in before]
    assert len(cells(result.stdout, "queue ms")) == 3  # an ensemble has no queue
    assert all(float(text) > 0 for text in cells(result.stdout, "compute ms"))


def test_json_has_the_same_numbers_as_triton(run, server, astronaut):
    with Client(server.grpc_url) as client:
        client.detect(astronaut)
    found = by_name(run("--json"))
    assert set(found) == set(MODELS)
    statistics = read_statistics(server.http_url)
    for name, model in found.items():
        counters, last = statistics[name]
        assert model["counters"]["pictures"] == counters.pictures
        assert model["last_inference"] == last
        assert model["milliseconds"]["queue"] > 0
        assert model["milliseconds"]["infer"] > 0
    assert 1 < found["nudenet"]["milliseconds"]["total"] < 1000
    assert (found["nudenet"]["backend"], found["nudenet_trt"]["backend"]) == ("ensemble", "python")
    assert found["nudenet_preprocess"]["instances"] == "2 x CPU"
    everything = json.loads(run("--json").stdout)
    assert everything["engine"].startswith("openvino")
    assert everything["packages"] == [package.digest()]


def test_steps_that_run_different_code_are_shown(server):
    now = status.look(
        server.http_url, server.metrics_url.removeprefix("http://").removesuffix("/metrics"), canary=False
    )
    mixed = dataclasses.replace(now, status=dataclasses.replace(now.status, packages=("0123456789ab", "ba9876543210")))
    with status.console.capture() as shown:
        status.console.print(status.screen(mixed))
    assert "restart the server" in shown.get()


def test_mean_batch_is_that_of_the_executions(run, server, astronaut):
    before = read_statistics(server.http_url)["nudenet_trt"][0]
    with Client(server.grpc_url) as client:
        list(client.detect_many([astronaut] * 8, batch_size=8))
    recent = read_statistics(server.http_url)["nudenet_trt"][0] - before
    assert (recent.pictures, recent.executions, recent.mean_batch) == (8, 1, 8.0)


def test_failures_and_refused_pictures_show_their_reasons(run, server):
    before = by_name(run("--json"))["nudenet"]["failures"].get("OTHER", 0)
    refused = json.loads(run("--json").stdout)["refused"].get("not_jpeg", 0)
    with Client(server.grpc_url) as client:
        with pytest.raises(ClientError):
            client.detect(b"no picture", Parameters(confidence_threshold=7))
        for _ in range(50):  # refused pictures reach /metrics a second late, with the next request
            with pytest.raises(PictureError):
                client.detect(b"no picture")
            if json.loads(run("--json").stdout)["refused"].get("not_jpeg", 0) > refused:
                break
            time.sleep(0.1)
    screen = run().stdout
    assert int(cells(screen, "OTHER")[0]) > before
    assert re.search(r"refused pictures since start: .*not_jpeg [1-9]", screen)


def test_the_canary_goes_through_all_models(run, server):
    before = read_statistics(server.http_url)
    result = run("--canary")
    assert result.exit_code == 0
    assert "canary  answered in" in result.stdout
    after = read_statistics(server.http_url)
    assert all((after[name][0] - before[name][0]).pictures == 1 for name in MODELS)


@pytest.fixture
def unready():
    """A server that says it lives, with one model that did not load, and fails everything else."""
    answers = {
        "/v2": {"name": "triton", "version": "2.51.0"},
        "/v2/models/stats": {"model_stats": []},
        "/v2/health/live": {},
        "/v2/repository/index": [
            {"name": "nudenet_trt", "version": "1", "state": "UNAVAILABLE", "reason": "no such plan"}
        ],
    }

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            known = self.path in answers
            body = json.dumps(answers.get(self.path, {"error": "not ready"})).encode()
            self.send_response(200 if known else 400)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as fake:
        threading.Thread(target=fake.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{fake.server_port}"
        fake.shutdown()


def test_a_model_that_did_not_load_says_why(run, unready):
    result = run("--url", unready, "--canary")
    assert result.exit_code == 1
    assert "live, not ready" in result.stdout
    assert "no such plan" in " ".join(result.stdout.split())
    assert "canary  " in result.stdout
    assert "answered in" not in result.stdout


def test_what_cannot_be_asked_says_why(run, server):
    nobody = run("--url", "127.0.0.1:1")
    assert nobody.exit_code == 1
    assert "127.0.0.1:1: Connection refused" in nobody.stderr
    assert "make serve" in nobody.stderr
    assert "no HTTP server there" in run("--url", server.grpc_url).stderr
    assert "no Triton server there" in run("--url", f"127.0.0.1:{server.ports.metrics}").stderr


def test_without_metrics_the_rest_is_there(run):
    result = run("--metrics-url", "127.0.0.1:1")
    assert result.exit_code == 0
    assert cells(result.stdout, "state") == ["ready"] * 4
    assert "without metrics: 127.0.0.1:1: Connection refused" in result.stdout
    assert cells(result.stdout, "waiting") == ["?"] * 4


def test_watch_shows_what_happens_between_two_looks(server, astronaut):
    command = [sys.executable, str(ROOT / "tools" / "status.py"), "--watch", "--interval", "0.3"]
    urls = ["--url", server.http_url, "--metrics-url", f"127.0.0.1:{server.ports.metrics}"]
    for extra in ([], ["--json"]):
        process = subprocess.Popen([*command, *urls, *extra], stdout=subprocess.PIPE, text=True)
        try:
            first = process.stdout.readline() if extra else ""
            with Client(server.grpc_url) as client:
                list(client.detect_many([astronaut] * 8))
            line = first
            while not (line.startswith("{") if extra else line.strip().startswith("pictures/s")):
                line = process.stdout.readline()
                assert line, "ended by itself"
        finally:
            process.send_signal(2)
            rest, _ = process.communicate(timeout=10)
        assert process.returncode == 0
        if extra:
            assert all(json.loads(text)["ready"] for text in [first, *rest.splitlines()])


def test_metrics_of_the_server_are_read_with_their_labels(server):
    text = urllib.request.urlopen(server.metrics_url).read().decode()
    samples = [line for line in text.splitlines() if line and not line.startswith("#")]
    metrics = read_metrics(f"127.0.0.1:{server.ports.metrics}")
    assert sum(map(len, metrics.values())) == len(samples)
    assert {labels["model"] for labels, _ in metrics["nv_inference_count"]} == set(MODELS)
