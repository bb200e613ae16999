"""What is made of a stream's answers: JSON lines, annotated or censored video, subtitles of what appears."""

from __future__ import annotations

import dataclasses
import datetime
import heapq
import json
import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, TextIO

import av
import numpy as np

from nudenet_client import Detections
from nudenet_client.pictures import upright_pixels
from nudenet_tools.pictures import drawing

from .runner import Served

_TIME_BASE = Fraction(1, 90_000)


class JsonLines:
    """One line a served frame, of all streams: `Detections.to_dict` with the frame's number and times."""

    def __init__(self, file: TextIO, source: str, lock: threading.Lock, shown: Collection[str] | None) -> None:
        self._file, self._source, self._lock, self._shown = file, source, lock, shown

    def __call__(self, served: Served) -> None:
        found = served.detections if self._shown is None else served.detections.only(self._shown)
        answer = found.to_dict(self._source)
        line = {
            "source": answer.pop("image"),
            "frame": served.frame.number,
            "time": round(served.frame.time, 3),  # seconds since the stream's first frame
            "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            "latency_ms": round(served.latency * 1e3, 1),
            **answer,
        }
        text = json.dumps(line, ensure_ascii=False)
        with self._lock:
            print(text, file=self._file, flush=True)


class Video:
    """H.264 in MP4 of the served frames at their own times. A dropped frame is not in it: the one before stays longer.

    So a frame that nobody looked at is never shown. The file is fragmented: it plays up to where a crash left it.

    Args:
        captions: called for each frame; what to write on it.
    """

    def __init__(self, path: Path, captions: Callable[[], Sequence[drawing.Caption]] = tuple) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._captions = path, captions
        self._container: av.container.OutputContainer | None = None
        self._last = -1

    def draw(self, pixels: np.ndarray, served: Served) -> None:
        """Change `pixels`, RGB uint8 [h,w,3], in place."""
        raise NotImplementedError

    def __call__(self, served: Served) -> None:
        pixels = upright_pixels(served.jpeg)
        self.draw(pixels, served)
        drawing.write(pixels, self._captions())
        pixels = pixels[: pixels.shape[0] // 2 * 2, : pixels.shape[1] // 2 * 2]  # 4:2:0 has even sizes only
        if self._container is None:
            self._open(pixels.shape[1], pixels.shape[0])
        assert self._container is not None
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        self._last = frame.pts = max(self._last + 1, int(served.frame.time / _TIME_BASE))
        frame.time_base = _TIME_BASE
        self._container.mux(self._stream.encode(frame))  # a source that changes its size is scaled to the first one

    def close(self) -> None:
        if self._container is not None:
            self._container.mux(self._stream.encode(None))
            self._container.close()

    def _open(self, width: int, height: int) -> None:
        options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
        self._container = av.open(str(self._path), "w", format="mp4", options=options)
        self._stream = self._container.add_stream("libx264", options={"preset": "ultrafast", "crf": "23"})
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        self._stream.codec_context.time_base = _TIME_BASE
        self._stream.codec_context.thread_count = 1  # streams are the parallelism


class AnnotatedVideo(Video):
    """Boxes and names drawn in; see `Video` for `options`."""

    def __init__(self, path: Path, shown: Collection[str] | None, **options: Any) -> None:
        super().__init__(path, **options)
        self._shown = shown

    def draw(self, pixels: np.ndarray, served: Served) -> None:
        drawing.annotate(pixels, served.detections if self._shown is None else served.detections.only(self._shown))


class CensoredVideo(Video):
    """Chosen classes made unrecognisable, and for `hold` seconds after they were last found.

    Without that, a single frame in which the detector misses would show what all others hide.
    """

    def __init__(self, path: Path, hidden: Collection[str], style: drawing.Style, hold: float, **options: Any) -> None:
        super().__init__(path, **options)
        self._hidden, self._style, self._hold = hidden, style, hold
        self._recent: deque[tuple[float, Detections]] = deque()

    def draw(self, pixels: np.ndarray, served: Served) -> None:
        now = served.frame.time
        self._recent.append((now, served.detections.only(self._hidden)))
        while self._recent[0][0] < now - self._hold:
            self._recent.popleft()
        boxes = np.concatenate([found.boxes for _, found in self._recent])
        # Newest last, each under a name of its own: drawing only looks at the boxes.
        merged = dataclasses.replace(
            served.detections,
            boxes=boxes,
            confidences=np.concatenate([found.confidences for _, found in self._recent]),
            class_ids=np.concatenate([found.class_ids for _, found in self._recent]),
            labels=tuple(label for _, found in self._recent for label in found.labels),
        )
        drawing.censor(pixels, merged, self._style)


@dataclasses.dataclass(order=True)
class _Event:
    begin: float
    end: float
    label: str
    best: float


class Events:
    """SubRip subtitles: from when to when each label was seen, with its best confidence.

    Args:
        gap: seconds without a label until its event ends.
    """

    def __init__(self, path: Path, shown: Collection[str] | None, gap: float = 1.0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", encoding="utf-8")
        self._shown, self._gap = shown, gap
        self._open: dict[str, _Event] = {}
        self._closed: list[_Event] = []
        self._written = 0

    def __call__(self, served: Served) -> None:
        now = served.frame.time
        for label in [label for label, event in self._open.items() if event.end < now - self._gap]:
            heapq.heappush(self._closed, self._open.pop(label))
        for detection in served.detections:
            if self._shown is None or detection.label in self._shown:
                event = self._open.setdefault(detection.label, _Event(now, now, detection.label, 0.0))
                event.end, event.best = now, max(event.best, detection.confidence)
        self._write()

    def close(self) -> None:
        for event in self._open.values():
            heapq.heappush(self._closed, event)
        self._open.clear()
        self._write()
        self._file.close()

    def _write(self) -> None:
        """Write what is over and began before everything that goes on: subtitles are sorted by their begin."""
        first = min((event.begin for event in self._open.values()), default=float("inf"))
        while self._closed and self._closed[0].begin <= first:
            event = heapq.heappop(self._closed)
            self._written += 1
            # At least a blink, for players and people: a single frame has no length.
            end = max(event.end, event.begin + 0.04)
            text = f"{self._written}\n{_clock(event.begin)} --> {_clock(end)}\n{event.label} {event.best:.2f}\n\n"
            self._file.write(text)
            self._file.flush()


def _clock(seconds: float) -> str:
    """SubRip's time: 00:01:02,345."""
    milliseconds = round(seconds * 1e3)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02},{rest % 1000:03}"
