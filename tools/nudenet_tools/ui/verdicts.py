"""What several policies say of a picture or a clip, side by side, as HTML."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any

from container.repository import MODEL_REPOSITORY
from nudenet_client import Client, ClientError, Detections, Parameters
from nudenet_tools.pictures.drawing import Caption
from nudenet_tools.segments.merging import Merged
from nudenet_tools.streams.runner import Failed, Served
from nudenet_tools.streams.source import Frame

GAP = 1.0  # seconds; finds that are no further apart are one segment, as tools/video.py has it by default
_COLOURS = {"allow": (21, 128, 61), "review": (180, 83, 9), "block": (220, 38, 38), "error": (220, 38, 38)}


def policy_names() -> list[str]:
    """Of the policies in this model repository, in the file's order."""
    path = MODEL_REPOSITORY / "nudenet_postprocess" / "policies.json"
    return list(json.loads(path.read_text(encoding="utf-8"))["policies"])


def html(judged: Mapping[str, Detections]) -> str:
    """One column a policy: its verdict on a picture, and what led to it."""
    return _columns(_column(name, found.verdict, "", _reasons(found)) for name, found in judged.items())


class ClipVerdicts:
    """What each policy says of each frame of a clip, and of the clip.

    Args:
        policies: names. Frames must have been judged by the first one; the others are asked here.
        parameters: of the requests.
    """

    def __init__(self, client: Client, parameters: Parameters, policies: Sequence[str]) -> None:
        self._client, self._parameters, self._policies = client, parameters, policies
        self._merged = {policy: Merged() for policy in policies}
        self.latest: dict[str, Detections] = {}  # policy -> of the latest frame

    def see(self, served: Served) -> None:
        """Take the next frame."""
        for policy in self._policies:
            found = served.detections if policy == self._policies[0] else self._ask(served.jpeg, policy)
            self._take(served.frame, policy, found)

    def fail(self, failed: Failed) -> None:
        """Take a frame that nobody could judge."""
        for policy in self._policies:
            self._take(failed.frame, policy, Parameters(policy=policy).failed(failed.reason))

    def _ask(self, jpeg: bytes, policy: str) -> Detections:
        parameters = replace(self._parameters, policy=policy)
        try:
            return self._client.detect(jpeg, parameters)
        except ClientError as error:
            return parameters.failed(str(error))

    def _take(self, frame: Frame, policy: str, found: Detections) -> None:
        self.latest[policy] = found
        self._merged[policy].add(frame.number, round(frame.time, 3), found, GAP)

    def captions(self) -> list[Caption]:
        """One line a policy for the latest frame: its verdict and what decided."""
        lines = []
        for policy, found in self.latest.items():
            decided = [f", {one['class']} {one['confidence']:.2f}" for one in found.reasons.get("findings", ())[:1]]
            lines.append(Caption(f"{policy}: {found.verdict}{''.join(decided)}", _COLOURS[found.verdict]))
        return lines

    def frame(self) -> dict[str, Any]:
        """The latest frame's verdicts for JSON."""
        return {
            policy: {"verdict": found.verdict, "findings": found.reasons.get("findings", [])}
            for policy, found in self.latest.items()
        }

    def clip(self) -> dict[str, Any]:
        """The clip's verdicts for JSON: the strictest of all frames, the second and frame where it begins, segments."""
        return {policy: self._summary(merged) for policy, merged in self._merged.items()}

    def _summary(self, merged: Merged) -> dict[str, Any]:
        first = merged.begin()
        segments = [one for one in merged.all_segments() if one["kind"] == "verdict"]
        return {"verdict": merged.verdict, "begins": first and first["start"], **merged.hashes, "segments": segments}

    def html(self) -> str:
        """One column a policy: its strictest verdict, where that begins, and from when to when each verdict lasts."""
        return _columns(
            _column(
                policy,
                merged.verdict,
                f" from {first['start']:.2f} s" if (first := merged.begin()) else "",
                [_segment(one) for one in merged.all_segments() if one["kind"] == "verdict"],
            )
            for policy, merged in self._merged.items()
        )


def _columns(columns: Any) -> str:
    text = "".join(columns)
    return f'<div class="verdicts">{text}</div>' if text else ""


def _column(policy: str, verdict: str, where: str, reasons: Sequence[str]) -> str:
    lines = "".join(f"<li>{escape(line)}</li>" for line in reasons)
    text = f"<ul>{lines}</ul>" if lines else "<p>nothing reached a threshold</p>"
    name, verdict = escape(policy), escape(verdict)
    return f'<div data-policy="{name}">{name} <b class="verdict {verdict}">{verdict}</b>{where}{text}</div>'


def _reasons(found: Detections) -> list[str]:
    if found.verdict == "error":
        return [str(found.reasons.get("error", found.error))]
    return [_finding(one) for one in found.reasons.get("findings", ())]


def _finding(finding: Mapping[str, Any]) -> str:
    return (
        f"{finding['class']} {finding['confidence']:.2f}, {finding['verdict']} from {finding['threshold']:g}, "
        f"{finding['area']:.1%} of the picture"
    )


def _segment(segment: Mapping[str, Any]) -> str:
    best = segment["best"]
    text = f"{segment['name']} {segment['start']:.2f} to {segment['end']:.2f} s, {segment['frames']} frames"
    return (
        text if best["class"] is None else f"{text}: {best['class']} {best['confidence']:.2f} at {best['time']:.2f} s"
    )
