"""Segments, held against an evaluation over all frames at once."""

import dataclasses
import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nudenet_client import Detections
from nudenet_tools.segments.merging import Merged

LABELS = ("A", "B")
FINDS = st.fixed_dictionaries({label: st.none() | st.sampled_from([0.25, 0.5, 0.75]) for label in LABELS})
FRAMES = st.lists(
    st.tuples(st.integers(1, 6), FINDS, st.sampled_from(["allow", "review", "block", "error"])), max_size=40
)


def answer(finds, verdict):
    if verdict == "error":
        return Detections.failed("refused", verdict="error")
    found = sorted(((value, label) for label, value in finds.items() if value), reverse=True)
    rows = np.array([[0, 0, 9, 9, 0, value] for value, _ in found], np.float32).reshape(-1, 6)
    result = Detections.from_rows(rows, [label for _, label in found], (9, 9))
    findings = []
    if verdict != "allow":
        findings = [{"class": "A", "verdict": verdict, "confidence": 0.5, "box": [1, 2, 3, 4]}]
    reasons = {"policy_sha256": "p", "network_sha256": "n", "findings": findings}
    return dataclasses.replace(result, verdict=verdict, reasons=reasons)


def hits(frames, kind, name):
    """(time, confidence) of each frame in which it was found."""
    for time, finds, verdict in frames:
        if kind == "class" and verdict != "error" and finds[name]:
            yield time, finds[name]
        if kind == "verdict" and verdict in {"review": ("review", "block")}.get(name, (name,)):
            yield time, None if name == "error" else 0.5


def brute_force(frames, gap):
    """(start, kind, name, end, frames, best confidence)"""
    segments = []
    for kind, name in [
        *(("class", label) for label in LABELS),
        *(("verdict", v) for v in ("review", "block", "error")),
    ]:
        found = list(hits(frames, kind, name))
        starts = [i for i in range(len(found)) if i == 0 or found[i][0] - found[i - 1][0] > gap]
        for begin, end in zip(starts, [*starts[1:], len(found)], strict=False):
            part = found[begin:end]
            best = max((confidence for _, confidence in part if confidence is not None), default=None)
            segments.append((part[0][0], kind, name, part[-1][0], len(part), best))
    return sorted(segments, key=lambda one: one[:3])


@settings(max_examples=200, deadline=None)
@given(FRAMES, st.integers(0, 8), st.sets(st.integers(0, 39)))
def test_segments_equal_brute_force_also_over_restarts(steps, gap, kills):
    time, frames, merged = 0, [], Merged()
    for number, (passed, finds, verdict) in enumerate(steps):
        time += passed
        frames.append((time / 4, finds, verdict))
        if number in kills:
            merged = Merged.load(json.loads(json.dumps(dataclasses.asdict(merged))))
        merged.add(number, time / 4, answer(finds, verdict), gap / 4)
    assert [
        (one["start"], one["kind"], one["name"], one["end"], one["frames"], one["best"]["confidence"])
        for one in merged.all_segments()
    ] == brute_force(frames, gap / 4)
    for one in merged.all_segments():
        assert one["best"]["class"] == (
            one["name"] if one["kind"] == "class" else {"error": None}.get(one["name"], "A")
        )
    verdicts = [verdict for *_, verdict in steps]
    assert merged.verdict == min(verdicts, key=["block", "error", "review", "allow"].index, default="")
    begin = merged.begin()
    worst = [time for time, _, verdict in frames if verdict == merged.verdict != "allow"]
    assert (begin and (begin["name"], begin["start"])) == ((merged.verdict, worst[0]) if worst else None)
    assert merged.blocked == (verdicts.index("block") if "block" in verdicts else None)
    assert (merged.analysed, merged.failed) == (len(steps), verdicts.count("error"))
    if set(verdicts) - {"error"}:
        assert merged.hashes == {"policy_sha256": "p", "network_sha256": "n"}
