"""From a picture, a clip or a camera frame and the page's settings to what the page shows."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path

import numpy as np
import supervision  # noqa: F401  # drawing needs it: a second that the first picture need not wait

import nudenet_client
from nudenet_client import Client, ClientError, Parameters, PictureError
from nudenet_client.pictures import upright_pixels
from nudenet_steps.suffixes import JPEG_SUFFIXES, VIDEO_SUFFIXES
from nudenet_tools.pictures import drawing
from nudenet_tools.server.status import StatusError
from nudenet_tools.server.step_times import StepTimes
from nudenet_tools.streams import outputs
from nudenet_tools.streams.runner import Failed, Served, Stream
from nudenet_tools.streams.source import Frame, Source
from nudenet_tools.ui import verdicts

LONGEST_CLIP = 60.0  # seconds of a clip that are looked at
CLIP_IN_FLIGHT = 4  # frames; fills batches without long queues
HOLD = 0.5  # seconds that a censored area of a clip outlasts its detection
# Formats that every browser shows as they are.
_BROWSER_SUFFIXES = JPEG_SUFFIXES | {".png", ".webp"}


@dataclass(frozen=True)
class Settings:
    """What the page's controls say."""

    confidence_threshold: float = 0.25
    iou_threshold: float = 0.45
    max_detections: int = 100
    shown: Sequence[str] = ()
    censor: bool = False
    style: drawing.Style = drawing.Style.blur
    censored: Sequence[str] = drawing.CENSORED_BY_DEFAULT
    policies: Sequence[str] = ()  # whose verdicts are shown

    @property
    def parameters(self) -> Parameters:
        """All classes are asked for: what is hidden or censored is decided here."""
        return Parameters(self.confidence_threshold, self.iou_threshold, int(self.max_detections))


@dataclass(frozen=True)
class View:
    """What to show; pictures are RGB uint8 [h,w,3] or files."""

    headline: str  # HTML
    original: np.ndarray | str | None = None
    result: np.ndarray | str | None = None
    steps: str = ""  # HTML
    text: str = ""  # JSON
    is_clip: bool = False


def is_clip(path: str | None) -> bool:
    """Whether the file is taken for a video, by its name."""
    return path is not None and Path(path).suffix.lower() in VIDEO_SUFFIXES


class Viewer:
    """Asks the server at `url` (HOST:PORT of gRPC); step times come from `http_url`. Clips are written to `folder`."""

    def __init__(self, url: str, http_url: str, folder: Path) -> None:
        self._client = Client(url, deadline=10.0, retries=1)
        self._http_url = http_url
        self._folder = folder

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def picture(self, path: str, settings: Settings) -> View:
        """Look at one picture file."""
        name = Path(path).name
        try:
            data = nudenet_client.to_jpeg(path)
            view = self._look(data, settings, name)
        except (ClientError, StatusError) as error:
            return failure(name, error)
        if Path(path).suffix.lower() in _BROWSER_SUFFIXES:
            return View(view.headline, path, view.result, view.steps, view.text)
        return view

    def camera(self, pixels: np.ndarray, settings: Settings) -> View:
        """Look at one frame of a camera, RGB uint8 [h,w,3]."""
        try:
            return self._look(nudenet_client.to_jpeg(pixels), settings, "camera")
        except (ClientError, StatusError) as error:
            return failure("camera", error)

    def _look(self, data: bytes, settings: Settings, name: str) -> View:
        with StepTimes(self._http_url) as times:
            found = self._client.detect(data, settings.parameters)
        judged = {
            policy: self._client.detect(data, replace(settings.parameters, policy=policy))
            for policy in settings.policies
        }
        shown = found.only(settings.shown)
        begin = time.perf_counter()
        original = upright_pixels(data)
        result = original.copy()
        if settings.censor:
            drawing.censor(result, found.only(settings.censored), settings.style)
        else:
            drawing.annotate(result, shown)
        drawn = time.perf_counter() - begin
        facts = f"{found.width}x{found.height}, {len(data) / 1000:.0f} kB"
        if settings.censor:
            facts += f", {len(found.only(settings.censored))} censored"
        headline = _headline(name, facts, len(found), Counter(shown.labels)) + verdicts.html(judged)
        answer = shown.to_dict(name)
        if judged:
            answer["verdicts"] = {key: {"verdict": one.verdict, "reasons": one.reasons} for key, one in judged.items()}
        text = json.dumps(answer, indent=2, ensure_ascii=False)
        return View(headline, original, result, times.html({"draw": drawn}), text)

    def clip(self, path: str, settings: Settings, progress: Callable[[float, str], None]) -> View:
        """Look at every frame of a clip, the first minute of it.

        Args:
            progress: called with the seconds done and a text.
        """
        name = Path(path).name
        target = Path(tempfile.mkdtemp(dir=self._folder)) / f"{Path(path).stem}-seen.mp4"
        judge = verdicts.ClipVerdicts(self._client, settings.parameters, settings.policies)
        video: outputs.Video
        if settings.censor:
            video = outputs.CensoredVideo(target, settings.censored, settings.style, HOLD, captions=judge.captions)
        else:
            video = outputs.AnnotatedVideo(target, settings.shown, captions=judge.captions)
        stop = threading.Event()
        seen = _Seen(settings.shown, judge, stop, progress)
        stream = Stream(
            Source(path, paced=False),
            self._client,
            replace(settings.parameters, policy=next(iter(settings.policies), None)),
            [seen, video],
            stop,
            in_flight=CLIP_IN_FLIGHT,
            every_frame=True,
            on_failure=seen.fail,
        )
        begin = time.perf_counter()
        try:
            with StepTimes(self._http_url) as times:
                stream.start()
                stream.join()
            video.close()
        except StatusError as error:
            return failure(name, error)
        finally:
            stop.set()
        counts, seconds = stream.counts, time.perf_counter() - begin
        if not counts.served:
            return failure(name, stream.error or counts.reason or "no frames in it")
        facts = f"{counts.served} frames, {seen.seconds:.1f} s, seen at {counts.served / seconds:.0f} frames a second"
        if seen.cut:
            facts += f", only the first {LONGEST_CLIP:.0f} s"
        problems = [f"{counts.failed} frames failed: {counts.reason}"] if counts.failed else []
        problems += [stream.error] if stream.error else []
        headline = _headline(name, facts, sum(counts.found.values()), seen.labels, "; ".join(problems)) + judge.html()
        return View(headline, path, str(target), times.html({}), seen.to_json(name, counts.served), is_clip=True)


@dataclass
class _Seen:
    """Collects what was found in a clip, and ends it when it gets too long."""

    shown: Sequence[str]
    judge: verdicts.ClipVerdicts
    stop: threading.Event
    progress: Callable[[float, str], None]
    labels: Counter[str] = field(default_factory=Counter)
    frames: list[dict] = field(default_factory=list)
    seconds: float = 0.0
    cut: bool = False

    def __call__(self, served: Served) -> None:
        self.judge.see(served)
        shown = served.detections.only(self.shown)
        self.labels.update(shown.labels)
        self._keep(served.frame, {"detections": shown.to_dict("")["detections"]}, bool(shown))

    def fail(self, failed: Failed) -> None:
        """Take a frame that could not be decoded or got no answer."""
        self.judge.fail(failed)
        self._keep(failed.frame, {"error": failed.reason}, True)

    def _keep(self, frame: Frame, answer: dict, found: bool) -> None:
        self.seconds = frame.time
        said = self.judge.frame()
        if found or any(one["verdict"] != "allow" for one in said.values()):
            judged = {"verdicts": said} if said else {}
            self.frames.append({"frame": frame.number, "time": round(self.seconds, 3), **answer, **judged})
        self.progress(self.seconds, f"{self.seconds:.1f} s of the clip")
        if self.seconds >= LONGEST_CLIP:
            self.cut = True
            self.stop.set()

    def to_json(self, name: str, frames: int) -> str:
        """Frames with finds, or with another verdict than allow, one a line: a clip has many."""
        lines = ",\n    ".join(json.dumps(frame) for frame in self.frames)
        said = self.judge.clip()
        judged = f',\n  "verdicts": {json.dumps(said)}' if said else ""
        return f'{{\n  "clip": {json.dumps(name)},\n  "frames": {frames}{judged},\n  "found": [\n    {lines}\n  ]\n}}'


def failure(name: str, error: Exception | str) -> View:
    """What is shown in place of a picture or clip that was refused."""
    reason = error.reason if isinstance(error, PictureError) else str(error)
    return View(f'<div class="headline failed"><b>{escape(name)}</b> was refused<p>{escape(reason)}</p></div>')


def note(text: str) -> View:
    """A line for people, with nothing to show."""
    return View(f'<div class="headline note">{escape(text)}</div>')


def _headline(name: str, facts: str, total: int, shown: Counter[str], problem: str = "") -> str:
    count = sum(shown.values())
    chips = "".join(
        f'<span class="chip">{escape(label)}{f" &times; {n}" if n > 1 else ""}</span>' for label, n in shown.items()
    )
    more = f" <i>and {total - count} hidden</i>" if total > count else ""
    trouble = f'<p class="trouble">{escape(problem)}</p>' if problem else ""
    return (
        f'<div class="headline" data-count="{count}"><b>{count}</b> found{more} <small>{escape(name)}, {facts}</small>'
        f"<div>{chips}</div>{trouble}</div>"
    )
