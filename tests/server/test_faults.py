"""A killed or hanging process of the server is noticed, replaced and cleaned up after."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.faults import deliver, inflict, left_behind, process_ids, server_processes, supervised, wait_for_answer
from conftest import models_with_reader
from container.healthcheck import Canary, CanaryError
from container.repository import Tuning
from container.supervisor import Watch
from nudenet_client import Client, ClientError
from nudenet_tools import ROOT
from nudenet_tools.server.process import LOOPBACK, Options, Ports, Server

HANGS = b"hangs"  # instead of a picture
QUICK = Watch(canary_every=0.5, canary_timeout=2, healthy_after=0)
HEALTHCHECK = [sys.executable, str(ROOT / "tools" / "container" / "healthcheck.py")]


def test_every_process_is_replaced_and_nothing_is_left(onnx_path):
    before, recoveries = server_processes(), []
    with supervised(QUICK) as (supervisor, events):
        for what, number, expected in (
            ("nudenet_preprocess", signal.SIGKILL, "a Python process of nudenet_preprocess died"),
            ("nudenet_trt", signal.SIGSEGV, "a Python process of nudenet_trt died"),
            ("nudenet_postprocess", signal.SIGKILL, "a Python process of nudenet_postprocess died"),
            ("tritonserver", signal.SIGKILL, "tritonserver ended with status -9"),
            ("nudenet_postprocess", signal.SIGSTOP, "the canary picture failed"),
        ):
            recoveries.append(inflict(supervisor, events, what, number))
            assert expected in recoveries[-1].events[0]
            assert "serving again after" in recoveries[-1].events[-1]
        assert supervisor.restarts == 5
    assert left_behind(recoveries, before) == []


@pytest.fixture
def hanging_models(onnx_path, tmp_path) -> Path:
    """Models whose decoder never comes back from `HANGS`, and that count as hanging after a second."""
    models = models_with_reader(tmp_path, onnx_path, f"while data == {HANGS!r}: pass")
    with (models / "nudenet" / "1" / "nudenet_steps" / "serving" / "heartbeat.py").open("a") as module:
        module.write("LONGEST_SECONDS = 1\n")
    return models


def hang_one_decoder(server: Server) -> None:
    with Client(server.grpc_url, deadline=1, retries=0) as client, pytest.raises(ClientError, match="Deadline"):
        client.detect(HANGS)


def test_one_of_two_that_hangs_is_noticed_while_the_other_answers(hanging_models):
    options = Options(ports=Ports.free(), model_repository=hanging_models)
    with supervised(QUICK, options) as (supervisor, events):
        hang_one_decoder(supervisor.server)
        failure = events.get(timeout=30)
        assert "nudenet_preprocess_0_" in failure
        assert "hangs:" in failure
        assert "serving again after" in events.get(timeout=60)
        wait_for_answer(supervisor.server.grpc_url)


def test_a_server_that_cannot_come_back_is_tried_again_later(onnx_path):
    options = Options(ports=Ports.free())
    with supervised(QUICK, options) as (supervisor, events):
        os.kill(process_ids(supervisor.server, "tritonserver")[0], signal.SIGKILL)
        with taken(options.ports.http):
            said = [events.get(timeout=60) for _ in range(3)]
        said.append(events.get(timeout=60))
        wait_for_answer(supervisor.server.grpc_url)
    assert "tritonserver ended with status -9" in said[0]
    assert f"port {options.ports.http} cannot be used" in said[1]
    assert said[1].endswith("next try in 1 s")
    assert said[2].endswith("next try in 2 s")
    assert "serving again after" in said[3]


def test_a_healthy_server_behind_an_http_proxy_is_left_alone(onnx_path, monkeypatch):
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")  # nobody there
    monkeypatch.setenv("no_proxy", "")
    with supervised(QUICK) as (supervisor, events):
        wait_for_answer(supervisor.server.grpc_url)
        time.sleep(10 * QUICK.canary_every)
        assert supervisor.restarts == 0
        assert events.empty()


@contextlib.contextmanager
def taken(port: int) -> Iterator[None]:
    """Somebody else listens on `port` as soon as it is free."""
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        while True:
            try:
                squatter.bind((LOOPBACK, port))
            except OSError:
                continue
            break
        squatter.listen()
        yield


def test_a_client_loses_no_picture_while_a_process_is_killed(onnx_path):
    delivery = deliver(300, kills=1)
    assert (delivery.answered, delivery.wrong, delivery.kills) == (300, 0, 1)


def healthcheck(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([*HEALTHCHECK, *arguments], capture_output=True, text=True, timeout=60)


def test_healthcheck_tells_alive_from_dead(server):
    alive = healthcheck("--url", server.grpc_url)
    assert alive.returncode == 0
    assert "answered in" in alive.stdout
    url = f"{LOOPBACK}:{Ports.free().grpc}"
    nobody = healthcheck("--url", url, "--timeout", "1")
    assert nobody.returncode == 1
    assert nobody.stderr.startswith(f"healthcheck: {url}: ")


def test_healthcheck_looks_at_each_process(hanging_models):
    """One of two decoders hangs, the other answers the canary picture."""
    with Server(Options(ports=Ports.free(), model_repository=hanging_models)) as server:
        arguments = ("--url", server.grpc_url)
        assert healthcheck(*arguments, "--processes").returncode == 0
        hang_one_decoder(server)
        time.sleep(1)  # until it counts as hanging
        assert healthcheck(*arguments).returncode == 0
        found = healthcheck(*arguments, "--processes")
        assert found.returncode == 1
        assert "answers, but nudenet_preprocess_0_" in found.stderr
        assert " hangs: " in found.stderr
        server.stop(timeout=1)


def test_healthcheck_sees_what_triton_does_not(onnx_path):
    """With dead detectors Triton still says ready."""
    with Server(Options(ports=Ports.free(), tuning=Tuning(instances={"nudenet_preprocess": 1}))) as server:
        for detector in server.stub_pids("nudenet_trt"):
            os.kill(detector, signal.SIGKILL)
        assert server.is_ready()
        with Canary(server.grpc_url) as canary, pytest.raises(CanaryError, match=r"nudenet_trt.* is not healthy"):
            canary.ask(5)
        server.stop(timeout=1)
