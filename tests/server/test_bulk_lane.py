"""A server with a bulk lane: the same answers, but only while live traffic leaves the cores idle."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import urllib.request

import pytest
from chaos.overload import BULK_MODEL, SATURATING, finish, load, start
from conftest import DATA
from nudenet_client import AsyncClient, Client, ClientError
from repository import ROOT, STEPS, Tuning
from server import Options, Ports, Server, get_json

SECONDS = 4.0


@pytest.fixture(scope="module")
def own_server(onnx_path):
    with Server(Options(ports=Ports.free(), tuning=Tuning(bulk_lane=True))) as server:
        yield server


def test_both_lanes_answer_the_same(own_server, astronaut):
    with Client(own_server.grpc_url) as live, Client(own_server.grpc_url, model=BULK_MODEL) as bulk:
        expected = live.detect(astronaut)
        assert len(expected) == 1
        assert list(bulk.detect(astronaut)) == list(expected)
    with Client(own_server.http_url, protocol="http", model=BULK_MODEL) as bulk:
        assert list(bulk.detect(astronaut)) == list(expected)

    async def asynchronously():
        async with AsyncClient(own_server.grpc_url, model=BULK_MODEL) as client:
            return await client.detect(astronaut)

    assert list(asyncio.run(asynchronously())) == list(expected)


def test_the_bulk_tool_takes_the_lane(own_server, tmp_path):
    def served() -> int:
        return get_json(own_server, f"/v2/models/{BULK_MODEL}/stats")["model_stats"][0]["inference_count"]

    (tmp_path / "pictures").mkdir()
    for number in range(3):
        (tmp_path / "pictures" / f"{number}.jpg").symlink_to(DATA / "astronaut_720p.jpg")
    before = served()
    command = [sys.executable, str(ROOT / "tools" / "bulk.py"), str(tmp_path / "pictures"), f"--model={BULK_MODEL}"]
    command += [f"--url={own_server.grpc_url}", f"--output={tmp_path / 'found'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert served() - before == 3


def test_processes_of_the_bulk_lane_step_back(own_server):
    policies = {(model, os.sched_getscheduler(pid)) for model, pid in own_server.stubs()}
    back = {(f"{model}_bulk", os.SCHED_IDLE) for model in STEPS}
    assert back < policies
    assert {model for model, policy in policies if policy != os.SCHED_IDLE} == set(STEPS)


def test_bulk_gets_what_live_leaves_and_nothing_is_lost(own_server):
    flood = start(own_server.grpc_url, SECONDS + 2, model=BULK_MODEL, in_flight=SATURATING)
    live = load(own_server.grpc_url, SECONDS, in_flight=SATURATING)
    bulk = finish(flood, SECONDS + 2)
    assert live.errors == bulk.errors == {}
    assert live.served.all()
    assert bulk.served.any()  # once live has ended, at the latest
    # As equals they would share the cores.
    meanwhile = bulk.served & (bulk.sent_at + bulk.latency < SECONDS)
    assert meanwhile.sum() < live.served.sum() / 3
    # Starved is not dead: Triton has not given its processes up.
    after = load(own_server.grpc_url, 1.0, rate=10, model=BULK_MODEL)
    assert after.served.all()


def test_each_lane_has_a_gauge(own_server):
    with urllib.request.urlopen(own_server.metrics_url, timeout=10) as response:
        text = response.read().decode()
    for lane in ("live", "bulk"):
        assert f'nudenet_in_flight{{lane="{lane}"}} 0' in text


def test_a_server_without_the_lane_says_so(server, astronaut):
    with Client(server.grpc_url, model=BULK_MODEL) as client, pytest.raises(ClientError, match=r"'nudenet_bulk'"):
        client.detect(astronaut)
