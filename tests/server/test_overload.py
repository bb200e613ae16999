"""More requests than the server can answer: it refuses some at once, live ones last, and is well again afterwards."""

from __future__ import annotations

import time
import urllib.request

import pytest

from chaos.overload import BULK, FACTOR, LIVE, SATURATING, finish, load, start
from chaos.rehearsal import pending
from container.healthcheck import Canary
from nudenet_tools.server.process import Options, Ports, Server, rehearsal
from nudenet_tools.server.status import StatusError, read_metrics

SECONDS = 3.0


@pytest.fixture(scope="module", params=["embedded", "rehearsal"])
def own_server(onnx_path, request):
    """A server that may be flooded: the embedded one, and the production configuration with a slow detector."""
    ports = Ports.free()
    with Server(Options(ports=ports) if request.param == "embedded" else rehearsal("stand_in_slow", ports=ports)) as up:
        yield up


def test_bulk_is_shed_before_live_and_all_is_well_afterwards(own_server):
    url = own_server.grpc_url
    capacity = load(url, SECONDS, in_flight=SATURATING)
    assert capacity.errors == {}

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

    for _ in range(10):  # some of the flood is still under way, seconds of work for a busy machine
        after = load(url, 1.0, rate=10)
        if after.served.all():
            break
    else:
        pytest.fail(f"not well after the flood: {after}")


def test_the_detectors_queue_stays_short_in_a_flood(own_server):
    """It has no limit of its own in production, since Triton decays when a queue policy meets its 30 ms delay."""
    flood, end = start(own_server.grpc_url, SECONDS, rate=1000, priority=LIVE), time.monotonic() + SECONDS
    waiting = []
    while time.monotonic() < end:
        waiting.append(pending(own_server))
        time.sleep(0.05)
    finish(flood, SECONDS)
    most = max(each["nudenet_trt"] for each in waiting)
    # What max_in_flight lets through, and once more a batch of each decoder: they look before they take.
    decoders = 8 * len(own_server.stub_pids("nudenet_preprocess"))
    assert most <= 32 + decoders


def test_clients_that_give_up_hurt_no_others_and_leave_nothing(own_server):
    """Few give up: Triton before 25.04 may die of each (docs/robustness.md). If it does, once more on a new one."""
    for _ in range(3):
        try:
            _give_up(own_server)
            return
        except (AssertionError, StatusError):
            if _lives(own_server):
                raise
            own_server.stop()
            own_server.start()
    pytest.fail("Triton died each time")


def _give_up(server: Server) -> None:
    # With a time-out in the queue, as our clients send it.
    url, hasty = server.grpc_url, {"priority": LIVE, "patience": "0.01,0.05", "timeout_us": 10_000}
    for in_flight, share in ((4, 0.5), (SATURATING, 0.0)):  # more than there is time for; more than can be served
        hurried = start(url, 2.0, in_flight=in_flight, **hasty)
        patient = load(url, 1.5, rate=20, priority=LIVE)
        given_up = finish(hurried, 2.0)
        assert not given_up.served.all()
        assert set(given_up.errors) <= {"late"}
        assert patient.errors == {}
        assert patient.served.mean() >= share

    for _ in range(10):  # each decoder finds what is lost while it is given pictures
        after = load(url, 1.0, rate=20)
        gauge = read_metrics(f"127.0.0.1:{server.ports.metrics}")["nudenet_in_flight"]
        if well := after.served.all() and gauge == [({}, 0)]:
            break
    assert well, f"what was lost is still counted ({gauge}), or keeps others out: {after}"


def _lives(server: Server) -> bool:
    """Whether Triton's own front end answers; it does so without the models."""
    try:
        with urllib.request.urlopen(f"http://{server.http_url}/v2/health/live", timeout=10):
            return True
    except OSError:
        return False
