"""Which frames are hits."""

import numpy as np
import pytest

from nudenet_client import Detections
from nudenet_tools.rules.match import Match, judged, match
from nudenet_tools.rules.rule_file import Rule

FACES = Rule("faces", classes=("FACE_FEMALE", "FACE_MALE"), min_confidence=0.5)
REVIEW, BLOCK = (Rule(verdict, verdict=verdict, policy="standard") for verdict in ("review", "block"))


def found(*pairs):
    rows = np.array([[1, 2, 3, 4, 0, confidence] for _, confidence in pairs], np.float32).reshape(-1, 6)
    return Detections.from_rows(rows, [label for label, _ in pairs], (100, 100))


def verdict(name, *findings):
    reasons = {
        "policy_sha256": "p",
        "network_sha256": "n",
        "findings": [
            {"class": label, "verdict": verdict, "confidence": confidence, "box": [1, 2, 3, 4]}
            for label, verdict, confidence in findings
        ],
    }
    empty = found()
    return Detections(empty.boxes, empty.confidences, empty.class_ids, (), 100, 100, None, name, reasons)


def test_the_most_confident_detection_that_counts():
    assert match(FACES, found(("BELLY_EXPOSED", 0.9), ("FACE_MALE", 0.5), ("FACE_FEMALE", 0.75))) == Match(
        "FACE_FEMALE", 0.75, (1, 2, 3, 4)
    )
    assert match(FACES, found(("FACE_MALE", 0.5))) is not None
    assert match(FACES, found(("FACE_MALE", 0.25), ("BELLY_EXPOSED", 0.9))) is None
    assert match(FACES, found()) is None


def test_a_verdict_counts_what_is_at_least_as_severe():
    both = verdict("block", ("A", "block", 0.7), ("B", "review", 0.9))
    assert match(BLOCK, both) == Match("A", 0.7, (1, 2, 3, 4), "p", "n")
    assert match(REVIEW, both) == Match("B", 0.9, (1, 2, 3, 4), "p", "n")
    assert match(BLOCK, verdict("review", ("B", "review", 0.9))) is None
    assert match(REVIEW, verdict("allow")) is None


@pytest.mark.parametrize(("name", "told"), [("allow", True), ("review", True), ("block", True), ("error", False)])
def test_a_frame_that_was_not_judged_tells_nothing(name, told):
    assert judged(REVIEW, verdict(name)) is told
    assert judged(FACES, verdict(name))
