"""Watchers and sessions without a server: the clock, messages, restarts, the pictures."""

import base64
import io
import json
import types

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from nudenet_client import Detections, Parameters
from nudenet_tools.pictures.drawing import Style
from nudenet_tools.rules.evidence import Evidence
from nudenet_tools.rules.rule_file import Rule, RuleFile, RuleFileError
from nudenet_tools.rules.session import Session, request
from nudenet_tools.rules.watcher import Watcher
from nudenet_tools.streams.runner import Served
from nudenet_tools.streams.source import Frame
from nudenet_tools.webhooks.delivery import JsonLines
from nudenet_tools.webhooks.outbox import Outbox

RULE = Rule("faces", ("FACE_MALE",), min_confidence=0.5, hits=2, frames=3, end_after=1.0, lost_after=5.0)
NOISE = np.random.default_rng(19).integers(0, 255, (360, 720, 3), np.uint8)
JPEG = simplejpeg.encode_jpeg(NOISE, quality=95)


def served(number, time, *confidences, reasons=None):
    rows = np.array([[100, 100, 300, 300, 0, confidence] for confidence in confidences], np.float32).reshape(-1, 6)
    found = Detections.from_rows(rows, ["FACE_MALE"] * len(rows), (720, 360))
    if reasons is not None:
        found = Detections(
            found.boxes, found.confidences, found.class_ids, found.labels, 720, 360, None, "block", reasons
        )
    return Served(Frame(number, time, 0.0, b""), JPEG, found, 0.01)


class Clock:
    """Both clocks; the wall clock is ahead by 1000 s."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def wall(self):
        return 1000.0 + self.now


def watcher(outbox, clock, states=None, rule=RULE, **options):
    return Watcher(
        "k", "cam", [rule], outbox, ["t"], states or {}, wall=clock.wall, monotonic=clock.monotonic, **options
    )


def events(outbox, target="t"):
    found = []
    while (waiting := outbox.first(target)) is not None:
        found.append(json.loads(waiting.message.body))
        outbox.delivered(waiting.number)
    return found


@pytest.fixture
def outbox(tmp_path):
    outbox = Outbox(tmp_path / "o")
    yield outbox
    outbox.close()


def test_one_event_from_start_to_end(outbox):
    clock, stored = Clock(), []
    subject = watcher(outbox, clock, stored=lambda: stored.append(1))
    for number, confidence in enumerate([0.75, 0.25, 0.5, 0.875, 0.25, 0.25, 0.25]):
        clock.now = number / 2
        subject(served(number, number / 2, confidence))
    start, end = events(outbox)
    assert len(stored) == 2
    assert start == {
        "specversion": "1.0",
        "id": f"{start['data']['event']}.0",
        "source": "/streams/cam",
        "type": "nudenet.event.start",
        "subject": "faces",
        "time": "1970-01-01T00:16:41.000Z",
        "datacontenttype": "application/json",
        "data": {
            "event": start["data"]["event"],
            "sequence": 0,
            "stream": "cam",
            "rule": {"name": "faces", "sha256": RULE.sha256},
            "level": "",
            "started": "1970-01-01T00:16:41.000Z",
            "last_hit": "1970-01-01T00:16:41.000Z",
            "hits": 1,
            "best": {
                "frame": 2,
                "at": "1970-01-01T00:16:41.000Z",
                "class": "FACE_MALE",
                "confidence": 0.5,
                "box": [100.0, 100.0, 300.0, 300.0],
            },
        },
    }
    assert end["id"] == f"{start['data']['event']}.1"
    assert (end["data"]["reason"], end["data"]["ended"]) == ("quiet", "1970-01-01T00:16:43.000Z")
    assert (end["data"]["hits"], end["data"]["best"]["frame"]) == (2, 3)


def test_events_of_verdicts_say_which_policy_and_network_decided(outbox):
    """Those of the best frame, also after a restart: a reload in between may have changed both."""
    rule = Rule("blocked", verdict="block", policy="p", frames=1)

    def judged(number, time, confidence, policy, network):
        finding = {"class": "A", "verdict": "block", "confidence": confidence, "box": [1, 2, 3, 4]}
        reasons = {"policy_sha256": policy, "network_sha256": network, "findings": [finding]}
        return served(number, time, reasons=reasons)

    clock = Clock()
    subject = watcher(outbox, clock, rule=rule)
    subject(judged(0, 0.0, 0.75, "p1", "n1"))
    subject(judged(1, 0.1, 0.5, "p2", "n2"))
    subject.save()
    watcher(outbox, clock, outbox.states(), rule=rule).finish(False)
    better = watcher(outbox, clock, rule=rule)
    better(judged(0, 0.0, 0.5, "p1", "n1"))
    better(judged(1, 0.1, 0.75, "p2", "n2"))
    better.finish(False)
    told = [(one["type"][14:], one["data"]["best"]) for one in events(outbox)]
    hashes = [(kind, best["policy_sha256"], best["network_sha256"]) for kind, best in told]
    assert hashes == [("start", "p1", "n1"), ("end", "p1", "n1"), ("start", "p1", "n1"), ("end", "p2", "n2")]
    assert {key for _, best in told for key in best} == {
        *("frame", "at", "class", "confidence", "box", "policy_sha256", "network_sha256")
    }


def test_a_stream_without_frames_is_lost_by_the_clock(outbox):
    clock = Clock()
    subject = watcher(outbox, clock)
    subject(served(0, 0.0, 0.75))
    subject(served(1, 0.0, 0.75))
    clock.now = 4.9
    subject.tick()
    assert [one["type"][-5:] for one in events(outbox)] == ["start"]
    clock.now = 9.0
    subject.tick()
    subject.tick()
    (end,) = events(outbox)
    assert (end["data"]["reason"], end["data"]["ended"]) == ("stream_lost", "1970-01-01T00:16:45.000Z")


@pytest.mark.parametrize(("failed", "reason"), [(False, "stream_ended"), (True, "stream_lost")])
def test_the_end_of_the_stream_ends_its_events(outbox, failed, reason):
    subject = watcher(outbox, Clock())
    subject(served(0, 0.0, 0.75))
    subject(served(1, 0.1, 0.75))
    subject.finish(failed)
    subject.finish(failed)
    assert [one["data"].get("reason") for one in events(outbox)] == [None, reason]


@pytest.mark.parametrize(("down", "survives"), [(4.0, True), (6.0, False)])
def test_a_kill(outbox, down, survives):
    """Nothing is told at the end. What is open goes on where it was, unless nobody looked for `lost_after`."""
    clock = Clock()
    subject = watcher(outbox, clock)
    subject(served(0, 0.0, 0.75))
    subject(served(1, 0.0, 0.75))
    clock.now = down
    subject = watcher(outbox, clock, outbox.states())
    subject.tick()
    subject(served(0, 0.0, 0.25))
    clock.now += 1.0
    subject(served(1, 1.0, 0.25))
    start, end = events(outbox)
    assert end["data"]["event"] == start["data"]["event"]
    assert end["data"]["reason"] == ("quiet" if survives else "stream_lost")
    assert end["time"] == ("1970-01-01T00:16:45.000Z")


def test_the_clock_never_goes_back(outbox):
    """The time of day was set back by ten minutes during a restart."""
    clock = Clock()
    subject = watcher(outbox, clock)
    subject(served(0, 0.0, 0.75))
    subject(served(1, 0.0, 0.75))
    clock.now = -600.0
    subject = watcher(outbox, clock, outbox.states())
    subject(served(0, 0.0, 0.25))
    subject(served(1, 1.0, 0.25))
    start, end = events(outbox)
    assert (start["time"], end["time"]) == ("1970-01-01T00:16:40.000Z", "1970-01-01T00:16:41.000Z")


# --- pictures ---


def test_the_picture_is_censored_and_that_of_the_best_frame(outbox):
    calls = []

    class Counting(Evidence):
        def picture(self, served, rule):
            calls.append(served.frame.number)
            return super().picture(served, rule)

    subject = watcher(outbox, Clock(), evidence=Counting([], Style.fill))
    for number, confidence in enumerate([0.5, 0.75, 0.875, 0.75]):
        subject(served(number, number / 10, confidence))
    subject.finish(False)
    assert calls == [1, 2]
    start, end = events(outbox)
    for event in (start, end):
        picture = base64.b64decode(event["data"]["picture"]["base64"])
        pixels = np.asarray(Image.open(io.BytesIO(picture)))
        assert pixels.shape == (320, 640, 3)
        assert pixels[95:260, 95:260].max() < 60
        assert pixels[:80].max() > 200


def test_what_only_the_policy_saw_is_censored_too():
    rule = Rule("blocked", verdict="block", policy="p")
    reasons = {"findings": [{"class": "A", "verdict": "block", "confidence": 0.9, "box": [400, 100, 600, 300]}]}
    picture = Evidence(["FACE_MALE"], Style.fill).picture(served(0, 0.0, 0.5, reasons=reasons), rule)
    pixels = np.asarray(Image.open(io.BytesIO(picture)))
    assert pixels[95:260, 95:260].max() < 60
    assert pixels[95:260, 362:528].max() < 60


# --- sessions ---


def ran(tmp_path, rule, keys, frames=(), stopped=False):
    """One run of the tool: the events it delivered."""
    lines = io.StringIO()
    outbox = Outbox(tmp_path / "session")
    with Session(RuleFile((rule,)), outbox, {"file": JsonLines(lines)}, None, print) as session:
        watchers = session.watch({key: f"label of {key}" for key in keys})
        for one in frames:
            for watcher in watchers:
                watcher(one)
        stream = types.SimpleNamespace(running=False, error="")
        session.look([stream] * len(keys), stopped)  # type: ignore[list-item]
    return [json.loads(line) for line in lines.getvalue().splitlines()]


def test_events_stay_open_over_a_stop_and_end_with_what_made_them(tmp_path):
    frames = [served(0, 0.0, 0.75), served(1, 0.1, 0.75)]
    first = ran(tmp_path, RULE, ["a", "b"], frames, stopped=True)
    assert [one["type"] for one in first] == ["nudenet.event.start"] * 2
    ids = {one["data"]["stream"]: one["data"]["event"] for one in first}
    (removed,) = ran(tmp_path, RULE, ["b"], stopped=True)
    assert (removed["data"]["event"], removed["data"]["reason"]) == (ids["label of a"], "stream_removed")
    changed = Rule("faces", ("FACE_MALE",), min_confidence=0.6)
    (end,) = ran(tmp_path, changed, ["b"])
    assert (end["data"]["event"], end["data"]["reason"]) == (ids["label of b"], "rule_changed")
    assert end["data"]["rule"]["sha256"] == RULE.sha256
    assert ran(tmp_path, changed, ["a", "b"]) == []


def test_what_rules_ask_of_the_server():
    verdicts = RuleFile((Rule("v", verdict="block", policy="strict"),), "strict")
    assert request(verdicts, Parameters()).policy == "strict"
    assert request(verdicts, Parameters(policy="strict")).policy == "strict"
    with pytest.raises(RuleFileError, match="the rule file's policy is 'strict', --policy is 'lenient'"):
        request(verdicts, Parameters(policy="lenient"))
    faces = RuleFile((RULE,))
    assert request(faces, Parameters(policy="lenient")).policy == "lenient"
    assert request(faces, Parameters()).classes is None
    assert request(faces, Parameters(classes=["A"]), ["B"]).classes == ("A", "B", "FACE_MALE")
    with pytest.raises(RuleFileError, match=r"'faces': min_confidence is 0.5, .*; pass --confidence-threshold 0.5"):
        request(faces, Parameters(0.6))
