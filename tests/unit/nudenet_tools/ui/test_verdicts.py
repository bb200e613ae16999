"""What policies say of a clip: frame by frame, and the strictest with where it begins."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from nudenet_client import Detections, Parameters, ServerUnavailable
from nudenet_tools.pictures import drawing
from nudenet_tools.streams.runner import Failed, Served
from nudenet_tools.streams.source import Frame
from nudenet_tools.ui.verdicts import ClipVerdicts, html

SCORES = {b"quiet": 0.1, b"doubtful": 0.5, b"sure": 0.9}  # of <A> in each picture
BLOCKS = {"strict": 0.4, "lenient": 0.8}  # from which score on


def judged(jpeg: bytes, policy: str) -> Detections:
    confidence = SCORES[jpeg]
    verdict = "block" if confidence >= BLOCKS[policy] else "allow"
    finding = {"class": "<A>", "verdict": verdict, "confidence": confidence, "threshold": BLOCKS[policy]}
    finding |= {"area": 0.25, "box": [1, 2, 3, 4]}
    findings = [finding] if verdict == "block" else []
    reasons = {"policy_sha256": policy, "network_sha256": "n", "findings": findings}
    empty = Detections.from_rows(np.zeros((0, 6), np.float32), [], (9, 9))
    return dataclasses.replace(empty, verdict=verdict, reasons=reasons)


class Scripted:
    """In place of a client; `asked` are (picture, policy, threshold)."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def detect(self, jpeg: bytes, parameters: Parameters) -> Detections:
        self.asked.append((jpeg, parameters.policy, parameters.confidence_threshold))
        if len(self.asked) == 4:
            raise ServerUnavailable("gone")
        return judged(jpeg, parameters.policy or "")


def test_each_frame_and_the_clip_by_each_policy():
    client, told = Scripted(), []
    clip = ClipVerdicts(client, Parameters(0.3), ["strict", "lenient"])  # type: ignore[arg-type]
    for number, jpeg in enumerate([b"quiet", b"doubtful", b"sure", b"quiet", None, b"quiet"]):
        frame = Frame(number, number * 2.0, 0.0, b"")
        if jpeg is None:
            clip.fail(Failed(frame, "cut off"))
        else:
            clip.see(Served(frame, jpeg, judged(jpeg, "strict"), 0.0))
        told.append({policy: one["verdict"] for policy, one in clip.frame().items()})
    # The first policy's answers came with the frames; the fourth question of the other one failed.
    assert client.asked == [(jpeg, "lenient", 0.3) for jpeg in (b"quiet", b"doubtful", b"sure", b"quiet", b"quiet")]
    assert [one["strict"] for one in told] == ["allow", "block", "block", "allow", "error", "allow"]
    assert [one["lenient"] for one in told] == ["allow", "allow", "block", "error", "error", "allow"]
    said = clip.clip()
    assert {policy: (one["verdict"], one["begins"]) for policy, one in said.items()} == {
        "strict": ("block", 2.0),
        "lenient": ("block", 4.0),
    }
    assert said["lenient"]["policy_sha256"] == "lenient"
    segments = [(one["name"], one["start"], one["end"]) for one in said["lenient"]["segments"]]
    assert segments == [("block", 4.0, 4.0), ("review", 4.0, 4.0), ("error", 6.0, 6.0), ("error", 8.0, 8.0)]
    text = clip.html()
    assert '<b class="verdict block">block</b> from 2.00 s' in text
    assert "<li>block 4.00 to 4.00 s, 1 frames: &lt;A&gt; 0.90 at 4.00 s</li>" in text
    assert "<li>error 8.00 to 8.00 s, 1 frames</li>" in text


def test_captions_name_policy_verdict_and_what_decided():
    clip = ClipVerdicts(Scripted(), Parameters(), ["strict", "lenient"])  # type: ignore[arg-type]
    assert clip.captions() == []
    clip.see(Served(Frame(0, 0.0, 0.0, b""), b"doubtful", judged(b"doubtful", "strict"), 0.0))
    captions = clip.captions()
    assert [one.text for one in captions] == ["strict: block, <A> 0.50", "lenient: allow"]
    pixels = np.zeros((180, 320, 3), np.uint8)
    drawing.write(pixels, captions)
    seen = {tuple(colour) for colour in pixels.reshape(-1, 3).tolist()}
    assert {caption.colour for caption in captions} <= seen
    assert not pixels[60:].any()


def test_a_clip_without_policies_has_no_verdicts():
    clip = ClipVerdicts(Scripted(), Parameters(), [])  # type: ignore[arg-type]
    clip.see(Served(Frame(0, 0.0, 0.0, b""), b"sure", judged(b"sure", "strict"), 0.0))
    assert (clip.html(), clip.clip(), clip.frame(), clip.captions()) == ("", {}, {}, [])


def test_a_picture_that_could_not_be_judged_says_why():
    failed = dataclasses.replace(judged(b"quiet", "strict"), verdict="error", reasons={"error": "NaN"})
    assert "<li>NaN</li>" in html({"strict": failed})
