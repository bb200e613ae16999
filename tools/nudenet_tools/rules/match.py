"""Whether a frame is a hit for a rule."""

from __future__ import annotations

from dataclasses import dataclass

from nudenet_client import Detections

from .rule_file import VERDICTS, Rule


@dataclass(frozen=True)
class Match:
    """The most confident part of a frame that a rule looks for; `box` is in pixels of the upright picture.

    The hashes say which policy and which network decided; empty for rules over classes.
    """

    label: str
    confidence: float
    box: tuple[float, float, float, float]
    policy_sha256: str = ""
    network_sha256: str = ""


def judged(rule: Rule, found: Detections) -> bool:
    """False where a frame tells the rule nothing: the policy could not judge it. It counts as dropped."""
    return not rule.verdict or found.verdict in ("allow", *VERDICTS)


def match(rule: Rule, found: Detections) -> Match | None:
    """What makes a frame a hit; None where it is none."""
    if rule.verdict:
        counted = VERDICTS[VERDICTS.index(rule.verdict) :]
        if found.verdict not in counted:
            return None
        hashes = (str(found.reasons["policy_sha256"]), str(found.reasons["network_sha256"]))
        matches = [
            Match(str(one["class"]), float(one["confidence"]), _box(one["box"]), *hashes)
            for one in found.reasons.get("findings", [])
            if one["verdict"] in counted
        ]
    else:
        matches = [
            Match(one.label, one.confidence, one.box)
            for one in found
            if one.label in rule.classes and one.confidence >= rule.min_confidence
        ]
    return max(matches, key=lambda one: one.confidence, default=None)


def _box(values: list[float]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = values
    return x1, y1, x2, y2
