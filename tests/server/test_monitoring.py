"""A real Prometheus with our configuration scrapes the real server: every panel and every alert has data."""

from __future__ import annotations

import contextlib
import json
import math
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import yaml
from tritonclient.utils import InferenceServerException

from nudenet_tools.server.process import Server

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "dashboard.json").read_text())
# These need a GPU in the machine that runs the test.
NEEDS_GPU = re.compile(r"\bnv_gpu_\w+")
COMPARISON = re.compile(r"\s*(==|!=|>=|<=|>|<)\s*[\d.]+$")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def infer(client: grpcclient.InferenceServerClient, data: bytes) -> None:
    image = grpcclient.InferInput("image", [1, 1], "BYTES")
    image.set_data_from_numpy(np.array([[data]], np.object_))
    with contextlib.suppress(InferenceServerException):
        client.infer("nudenet", [image], client_timeout=10, parameters={"policy": "standard"})


@contextlib.contextmanager
def running(command: list[str], log: Path) -> Iterator[None]:
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            process.terminate()
            process.wait(20)


@contextlib.contextmanager
def light_load(server: Server, picture: bytes) -> Iterator[None]:
    """Twenty pictures a second, one in ten no JPEG."""
    stop = threading.Event()

    def send() -> None:
        with grpcclient.InferenceServerClient(server.grpc_url) as client:
            count = 0
            while not stop.wait(0.05):
                count += 1
                infer(client, b"GIF89a" if count % 10 == 0 else picture)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class Prometheus:
    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def query(self, expression: str) -> list[float]:
        """Finite values of an instant query.

        Raises:
            AssertionError: Prometheus does not accept the expression.
        """
        url = f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                result = json.load(response)["data"]["result"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{expression}: {json.load(error)['error']}") from error
        values = [float(sample["value"][1]) for sample in result]
        return [value for value in values if math.isfinite(value)]

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as response:
                return response.status == 200
        except OSError:
            return False


def write_config(folder: Path, targets: dict[str, str]) -> Path:
    """The shipped configuration with this machine's targets and a test's patience."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(PROMETHEUS / name) for name in config["rule_files"]]
    config["scrape_configs"] = [job for job in config["scrape_configs"] if job["job_name"] in targets]
    for job in config["scrape_configs"]:
        job.pop("scrape_interval", None)
        job.pop("scrape_timeout", None)
        job["static_configs"] = [{"targets": [targets.pop(job["job_name"])]}]
        if job["job_name"] == "nudenet-canary":
            job.update(scrape_interval="4s", scrape_timeout="4s")
    assert not targets
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture(scope="module")
def prometheus(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    picture = (ROOT / "tests" / "data" / "astronaut_720p.jpg").read_bytes()
    folder = tmp_path_factory.mktemp("prometheus")
    port, canary = free_port(), free_port()
    config = write_config(
        folder, {"nudenet": f"127.0.0.1:{server.ports.metrics}", "nudenet-canary": f"127.0.0.1:{canary}"}
    )
    exporter = [sys.executable, str(ROOT / "tools" / "container" / "canary_exporter.py"), f"--port={canary}"]
    exporter += [f"--grpc-url={server.grpc_url}", f"--http-url={server.http_url}"]
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    command.append(f"--web.listen-address=127.0.0.1:{port}")
    with (
        running(exporter, folder / "canary.log"),
        running(command, folder / "prometheus.log"),
        light_load(server, picture),
    ):
        found = Prometheus(port)
        deadline = time.monotonic() + 30
        # Rates need two scrapes, and the rules that build on rules two evaluations more.
        while not (found.is_ready() and all(found.query(expression) for _, expression in expressions())):
            if time.monotonic() > deadline:
                break  # each test says what is missing
            time.sleep(0.5)
        yield found


def expressions() -> list[tuple[str, str]]:
    """(where it stands, what to ask) of every panel and alert that needs no GPU."""
    return [entry for entry in (*panel_expressions(), *alert_measures()) if not NEEDS_GPU.search(entry[1])]


def panel_expressions() -> list[tuple[str, str]]:
    return [
        (f"panel {panel['title']} {target['refId']}", in_this_test(target["expr"]))
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", ())
    ]


def in_this_test(expression: str) -> str:
    """Fill in what Grafana fills in."""
    return expression.replace("$__rate_interval", "10s").replace("$instance", ".*")


def alert_rules() -> list[dict]:
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alert_measures() -> list[tuple[str, str]]:
    """What each alert compares, without the comparison: it must have data also when all is well."""
    found = []
    for rule in alert_rules():
        for part in rule["expr"].split(" and "):
            measure, comparisons = COMPARISON.subn("", part)
            assert comparisons == 1, f"{rule['alert']}: {part} does not end in a comparison with a number"
            found.append((f"alert {rule['alert']}", measure))
    return found


@pytest.mark.needs("prometheus")
@pytest.mark.parametrize(("place", "expression"), expressions(), ids=[place for place, _ in expressions()])
def test_expression_returns_data(prometheus: Prometheus, place: str, expression: str):
    assert prometheus.query(expression), f"{place}: no data for {expression}"


@pytest.mark.needs("prometheus")
@pytest.mark.parametrize("expression", [e for _, e in (*panel_expressions(), *alert_measures()) if NEEDS_GPU.search(e)])
def test_gpu_expression_parses(prometheus: Prometheus, expression: str):
    prometheus.query(expression)


def test_only_the_gpu_panels_go_without_data():
    without = {place for place, expression in panel_expressions() if NEEDS_GPU.search(expression)}
    assert without == {"panel GPU utilisation A", "panel GPU memory A", "panel GPU memory B", "panel GPU power A"}


@pytest.mark.needs("prometheus")
def test_no_alert_fires_on_a_healthy_server(prometheus: Prometheus):
    # Not the one on latency: the server is shared with other tests, and how fast it is depends on the machine.
    names = "|".join(rule["alert"] for rule in alert_rules() if rule["alert"] != "NudenetSlow")
    # A pending alert is a measure over its threshold; with one picture in ten refused, none may be.
    assert prometheus.query(f'count(ALERTS{{alertname=~"{names}"}}) or vector(0)') == [0]


@pytest.mark.needs("prometheus")
def test_canary_and_readiness_are_seen(prometheus: Prometheus):
    assert prometheus.query("nudenet_ready") == [1]
    assert prometheus.query("nudenet_canary_success") == [1]
