"""The state machine, held against an evaluation of the same definitions over all frames at once."""

import json
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.brute_force import brute_force
from nudenet_tools.rules.machine import CHANGED, Machine
from nudenet_tools.rules.match import Match
from nudenet_tools.rules.rule_file import Level, Rule

EIGHTHS = st.integers(0, 48).map(lambda n: n / 8)  # exact in floating point
CONFIDENCES = st.none() | st.sampled_from([0.25, 0.5, 0.75])
# Gaps between frames: mostly the frame rate, sometimes dropped frames, sometimes a lost stream.
FRAMES = st.lists(st.tuples(st.sampled_from([1, 1, 1, 1, 2, 5, 12, 40]), CONFIDENCES), max_size=80)


@st.composite
def rules(draw):
    frames = draw(st.integers(0, 6))
    return Rule(
        "r",
        classes=("FACE_FEMALE",),
        hits=draw(st.integers(1, frames or 4)),
        frames=frames,
        seconds=0.0 if frames else draw(st.integers(1, 16)) / 8,
        end_after=draw(EIGHTHS) / 4,
        cooldown=draw(EIGHTHS),
        update_every=draw(st.sampled_from([0.0, 0.5, 2.0])),
        escalation=draw(st.sampled_from([(), (Level(0.5, "a"),), (Level(0.5, "a"), Level(1.5, "b"))])),
        lost_after=draw(st.sampled_from([1.0, 2.0, 4.5])),
    )


def timed(frames):
    time, result = 100.0, []
    for gap, confidence in frames:
        time += gap / 8
        result.append((time, confidence))
    return result


def hit(confidence):
    return None if confidence is None else Match("FACE_FEMALE", confidence, (1.0, 2.0, 3.0, 4.0))


def machine(rule, numbers=None, saved=None):
    numbers = numbers or count()
    return Machine(rule, lambda: f"event-{next(numbers)}", saved)


def told(event):
    return (
        event.kind, event.time, event.reason, event.open.level, event.open.best.match.confidence, event.open.hits,
    )  # fmt: skip


def well_formed(events):
    """Each event has one start, at most one end, which is last, and messages counted from 0."""
    by_id = {}
    for event in events:
        by_id.setdefault(event.open.id, []).append(event)
    for messages in by_id.values():
        assert [message.sequence for message in messages] == list(range(len(messages)))
        assert [message.kind for message in messages].count("start") == 1
        assert messages[0].kind == "start"
        assert all(message.kind == "update" for message in messages[1:-1])
    return by_id


@settings(max_examples=400, deadline=None)
@given(rules(), FRAMES)
def test_events_equal_a_brute_force_evaluation(rule, frames):
    frames, subject = timed(frames), machine(rule)
    events = [event for i, (time, c) in enumerate(frames) for event in subject.see(time, i, hit(c))]
    assert [told(event) for event in events] == brute_force(rule, frames)
    well_formed(events)
    assert all(
        frames[event.open.best.frame] == (event.open.best.time, event.open.best.match.confidence) for event in events
    )


@settings(max_examples=100, deadline=None)
@given(rules(), FRAMES, st.data())
def test_looking_at_the_clock_between_frames_changes_nothing(rule, frames, data):
    frames, subject, events, before = timed(frames), machine(rule), [], 100.0
    for i, (time, confidence) in enumerate(frames):
        ticks = data.draw(st.lists(st.integers(0, 8), max_size=2).map(sorted))
        for tick in ticks:
            events += subject.pass_time(before + (time - before) * tick / 8)
        events += subject.see(time, i, hit(confidence))
        before = time
    assert [told(event) for event in events] == brute_force(rule, frames)


@settings(max_examples=100, deadline=None)
@given(rules(), FRAMES, st.sets(st.integers(0, 79)))
def test_open_events_survive_restarts(rule, frames, kills):
    """Whatever frame it is killed after: no event starts twice, and none is forgotten while it is open."""
    numbers, events, saved = count(), [], None
    subject = machine(rule, numbers)
    for i, (time, confidence) in enumerate(timed(frames)):
        if i in kills:
            before = subject.open
            saved = json.loads(json.dumps(subject.to_dict()))
            subject = machine(rule, numbers, saved)
            assert subject.open == before
        events += subject.see(time, i, hit(confidence))
    still_open = {subject.open.id} if subject.open else set()
    for name, messages in well_formed(events).items():
        assert (messages[-1].kind == "end") == (name not in still_open)


def test_a_dropped_frame_ends_nothing():
    """The first quiet frame after a gap begins the quiet time; the gap is not part of it."""
    subject = machine(Rule("r", ("FACE_FEMALE",), end_after=2.0, lost_after=10.0))
    assert [event.kind for event in subject.see(0.0, 0, hit(0.5))] == ["start"]
    assert subject.see(9.0, 270, None) == []
    assert subject.see(10.9, 327, None) == []
    (end,) = subject.see(11.0, 330, None)
    assert (end.kind, end.reason, end.time, end.open.last_hit) == ("end", "quiet", 11.0, 0.0)


def test_a_lost_stream_ends_the_event_without_a_frame():
    subject = machine(Rule("r", ("FACE_FEMALE",), lost_after=10.0))
    subject.see(0.0, 0, hit(0.5))
    assert subject.pass_time(9.9) == []
    (end,) = subject.pass_time(25.0)
    assert (end.reason, end.time) == ("stream_lost", 10.0)
    assert subject.pass_time(60.0) == []


def test_tenths_of_a_second_are_exact_on_a_clock_that_began_in_1970():
    subject = machine(Rule("r", ("FACE_FEMALE",), end_after=0.4, lost_after=10.0))
    base, ends = 1_700_000_000.0, []
    for i in range(200):
        ends += [e.time for e in subject.see(base + i / 10, i, None if i % 10 else hit(0.5)) if e.kind == "end"]
    assert [round(end - base, 3) for end in ends] == [second + 0.5 for second in range(20)]


def test_an_end_from_outside():
    subject = machine(Rule("r", ("FACE_FEMALE",)))
    assert subject.end(1.0, CHANGED) == []
    subject.see(2.0, 0, hit(0.5))
    (end,) = subject.end(3.0, CHANGED)
    assert (end.kind, end.reason, end.sequence) == ("end", CHANGED, 1)
