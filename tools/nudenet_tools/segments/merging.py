"""Segments out of the answers to single frames. Pure: no files, no server."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nudenet_client import Detections

Kind = Literal["class", "verdict"]
# Verdicts that make a segment, each with those that count for it, too.
_COUNTS_FOR = {"review": ("review", "block"), "block": ("block",), "error": ("error",)}
_WORST_FIRST = ("block", "error", "review", "allow")


@dataclass
class Segment:
    """From the first to the last frame in which something was found, in seconds.

    Attributes:
        name: a label, or ``review`` (which counts ``block``, too), ``block`` or ``error``.
        frames: analysed frames in which it was found.
        best: the most confident one: ``frame``, ``time``, ``class``, ``confidence``, ``box``; the last three are None
            for ``error``.
    """

    kind: Kind
    name: str
    start: float
    end: float
    frames: int
    best: dict[str, Any]


@dataclass
class Merged:
    """What was found so far; a plain tree of JSON values with `dataclasses.asdict`.

    Attributes:
        segments: those that are over.
        open: those that may go on.
        analysed, failed: frames; a failed one could not be decoded or was refused.
        last_frame: number of the latest one; -1 before the first.
        verdict: the worst so far; empty without a policy.
        hashes: of the policy and of the network, where verdicts were given.
        blocked: the first frame with the verdict ``block``.
    """

    segments: list[Segment] = field(default_factory=list)
    open: list[Segment] = field(default_factory=list)
    analysed: int = 0
    failed: int = 0
    last_frame: int = -1
    last_time: float = 0.0
    verdict: str = ""
    hashes: dict[str, str] = field(default_factory=dict)
    blocked: int | None = None

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> Merged:
        """From what `dataclasses.asdict` made."""
        segments = {name: [Segment(**one) for one in saved[name]] for name in ("segments", "open")}
        return cls(**{**saved, **segments})

    def add(self, frame: int, time: float, found: Detections, gap: float) -> None:
        """Take the answer to the next frame.

        Args:
            time: seconds since the first frame.
            gap: two finds that are no further apart, in seconds, are in one segment.
        """
        self.analysed += 1
        self.failed += found.error is not None
        self.last_frame, self.last_time = frame, time
        if found.verdict:
            self.verdict = min((self.verdict or "allow", found.verdict), key=_WORST_FIRST.index)
            for name in ("policy_sha256", "network_sha256"):
                if name in found.reasons:
                    self.hashes[name] = found.reasons[name]
            if found.verdict == "block" and self.blocked is None:
                self.blocked = frame
        # In whole milliseconds, which is what times are: 0.1 s must be 0.1 s.
        over = [segment for segment in self.open if round(time - segment.end, 3) > gap]
        self.open = [segment for segment in self.open if round(time - segment.end, 3) <= gap]
        self.segments += over
        going_on = {(segment.kind, segment.name): segment for segment in self.open}
        for kind, name, label, confidence, box in best_finds(found):
            best = {"frame": frame, "time": time, "class": label, "confidence": confidence, "box": box}
            segment = going_on.get((kind, name))
            if segment is None:
                self.open.append(Segment(kind, name, time, time, 1, best))
                continue
            segment.end, segment.frames = time, segment.frames + 1
            if confidence is not None and confidence > segment.best["confidence"]:
                segment.best = best

    def begin(self) -> dict[str, Any] | None:
        """The first segment of the worst verdict; None where that is ``allow``, or there is none."""
        verdicts = (one for one in self.all_segments() if one["kind"] == "verdict" and one["name"] == self.verdict)
        return next(verdicts, None)

    def all_segments(self) -> list[dict[str, Any]]:
        """All of them as JSON values, sorted by start, kind and name."""
        every = sorted([*self.segments, *self.open], key=lambda one: (one.start, one.kind, one.name))
        return [dataclasses.asdict(one) for one in every]


def best_finds(found: Detections) -> Iterable[tuple[Kind, str, str | None, float | None, list[float] | None]]:
    """(kind, name, label, confidence, box) of the most confident find of each label and verdict in one frame."""
    labels = set()
    for one in found:  # best first
        if one.label not in labels:
            labels.add(one.label)
            yield "class", one.label, one.label, one.confidence, list(one.box)
    for name, counted in _COUNTS_FOR.items():
        if found.verdict in counted:
            findings = [one for one in found.reasons.get("findings", ()) if one["verdict"] in counted]
            if name == "error" or not findings:
                yield "verdict", name, None, None, None
            else:
                best = max(findings, key=lambda one: one["confidence"])
                yield "verdict", name, best["class"], best["confidence"], list(best["box"])
