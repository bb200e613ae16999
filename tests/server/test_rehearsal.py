"""`serve.py --rehearse`: the production configuration on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from nudenet_client import Client
from nudenet_tools import ROOT
from nudenet_tools.server.process import Ports, get_json

SERVE = [sys.executable, str(ROOT / "tools" / "serve.py"), "--rehearse"]


def test_the_production_values_are_served(rehearsal, server, astronaut):
    detector = get_json(rehearsal, "/v2/models/nudenet_trt/config")
    assert detector["dynamic_batching"]["preferred_batch_size"] == [4, 8]
    assert detector["dynamic_batching"]["max_queue_delay_microseconds"] == 30_000
    assert detector["parameters"] == {}
    assert len(detector["model_warmup"]) == 3
    assert len(rehearsal.stub_pids("nudenet_trt")) == 3
    assert len(rehearsal.stub_pids("nudenet_preprocess")) == 8
    with Client(rehearsal.grpc_url) as client, Client(server.grpc_url) as embedded:
        assert client.detect(astronaut).labels == embedded.detect(astronaut).labels


def test_a_person_can_start_one_with_another_stand_in():
    ports = Ports.free()
    environment = os.environ | {
        "HTTP_PORT": str(ports.http),
        "GRPC_PORT": str(ports.grpc),
        "METRICS_PORT": str(ports.metrics),
    }
    with subprocess.Popen(
        [*SERVE, "--stand-in", "fast"], env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            said = next(line for line in process.stderr if "ready" in line or "serve:" in line)
            assert "stand-in, 0 ms a picture, no network" in said
        finally:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def test_options_that_would_change_the_configuration_are_refused():
    for extra, message in (
        (["--config-name", "cpu"], "leave out the options that change it"),
        (["--stand-in", "tpu"], "must be one of openvino, slow, fast"),
    ):
        result = subprocess.run([*SERVE, *extra], capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == 2
        assert message in " ".join(result.stderr.replace("│", " ").split())
