"""More requests than the server can answer: it refuses some at once, live ones last, and is well again afterwards."""

from __future__ import annotations

import pytest

from chaos.overload import BULK, FACTOR, LIVE, SATURATING, finish, load, start
from container.healthcheck import Canary
from nudenet_tools.server.process import Options, Ports, Server
from nudenet_tools.server.repository import MODEL_REPOSITORY, read_config
from nudenet_tools.server.status import read_metrics

SECONDS = 3.0


@pytest.fixture(scope="module")
def own_server(onnx_path):
    """A server that may be flooded."""
    with Server(Options(ports=Ports.free())) as server:
        yield server


def test_bulk_is_shed_before_live_and_all_is_well_afterwards(own_server):
    url = own_server.grpc_url
    capacity = load(url, SECONDS, in_flight=SATURATING)
    assert capacity.served.all()

    flood = start(url, SECONDS + 4, rate=FACTOR * capacity.served_rate, priority=BULK)
    live = load(url, SECONDS, rate=capacity.served_rate / 8, priority=LIVE)
    hasty = load(url, 0.5, rate=40, priority=BULK, timeout_us=1000)
    with Canary(url) as canary:
        canary.ask(10)  # busy is not dead: supervision must not restart a flooded server
    bulk = finish(flood, SECONDS + 4)
    for stream in (live, bulk, hasty):
        assert stream.errors == {}
    assert (bulk.outcome == "shed").mean() > 0.3
    assert bulk.served.sum() > capacity.served.sum() / 4
    assert live.served.mean() > 0.9
    assert hasty.served.mean() < 0.5  # a request may ask for less patience than the queue has

    after = load(url, 1.0, rate=10)
    assert after.served.all()


@pytest.mark.parametrize("name", ["config.pbtxt", "configs/cpu.pbtxt", "configs/cuda.pbtxt"])
def test_every_setting_has_a_bounded_queue_with_two_levels(name):
    batching = read_config(MODEL_REPOSITORY / "nudenet_preprocess" / name).dynamic_batching
    assert batching.priority_levels == 2
    assert batching.default_priority_level == 1
    for level in (1, 2):
        policy = batching.priority_queue_policy[level]
        assert policy.max_queue_size > 0
        assert policy.timeout_action == policy.REJECT
        assert policy.default_timeout_microseconds > 0
        assert policy.allow_timeout_override


def test_clients_that_give_up_hurt_no_others_and_leave_nothing(own_server):
    url, hasty = own_server.grpc_url, {"priority": LIVE, "patience": "0.01,0.05"}
    for in_flight, share in ((4, 1.0), (SATURATING, 0.0)):  # more than there is time for; more than can be served
        given_up = start(url, SECONDS + 2, in_flight=in_flight, **hasty)
        patient = load(url, SECONDS, rate=20, priority=LIVE)
        given_up = finish(given_up, SECONDS + 2)
        assert (given_up.outcome == "late").mean() > 0.5
        assert set(given_up.errors) == {"late"}
        assert patient.errors == {}
        assert patient.served.mean() >= share

    for _ in range(10):  # each decoder finds what is lost while it is given pictures
        after = load(url, 1.0, rate=20)
        assert after.served.all()
        gauge = read_metrics(f"127.0.0.1:{own_server.ports.metrics}")["nudenet_in_flight"]
        if gauge == [({}, 0)]:
            break
    else:
        pytest.fail(f"what was lost is still counted: {gauge}")
