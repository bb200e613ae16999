"""Frames out of video files, picture folders, cameras and network streams, at the pace they were recorded in."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import av.container
import numpy as np
import simplejpeg

from nudenet_client import to_jpeg
from nudenet_tools.pictures import files as picture_files

VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".mov", ".avi", ".webm", ".ts", ".m4v", ".mpg", ".mpeg", ".mjpeg", ".mjpg"})
TIMEOUT = 5.0  # seconds without data until a network stream counts as lost
# Demuxers of sources that set the pace themselves; what else comes is played at its own frame rate.
_LIVE_FORMATS = frozenset({"rtsp", "mpjpeg", "v4l2", "video4linux2,v4l2", "sdp"})
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0  # seconds before a lost live source is opened again


class SourceError(ValueError):
    """A source that is missing, empty or unreadable; the message names it."""


@dataclass(frozen=True)
class Frame:
    """One frame, not yet encoded where the source is not MJPEG: most dropped frames never are.

    Attributes:
        number: from 0, dropped ones counted.
        time: seconds since the stream's first frame.
        due: `time.monotonic` seconds when it was there to be sent.
    """

    number: int
    time: float
    due: float
    content: bytes | Path | av.VideoFrame = field(repr=False)

    def jpeg(self, quality: int) -> bytes:
        """The frame as a JPEG file.

        Raises:
            PictureError: a picture file that cannot be read.
        """
        if isinstance(self.content, bytes):
            return self.content
        if isinstance(self.content, Path):
            return to_jpeg(self.content)
        pixels = self.content.to_ndarray(format="rgb24")
        turns = round(self.content.rotation / 90) % 4  # phones store turned pictures and say so
        return simplejpeg.encode_jpeg(np.ascontiguousarray(np.rot90(pixels, turns)), quality, "RGB", "420")


@dataclass
class Source:
    """One stream to be.

    Args:
        name: as given on the command line.
        files: the pictures of a folder, in place of a video.
        fps: pace of `files`.
        paced: False delivers recorded frames as fast as they are taken.
        input_options: for FFmpeg's demuxer, e.g. ``{"rtsp_transport": "udp"}``.

    Attributes:
        passthrough: whether frames are sent as they come, being JPEG already.
        reconnects: how often a live source was lost and opened again.
    """

    name: str
    files: tuple[Path, ...] = ()
    fps: float = 25.0
    paced: bool = True
    input_options: Mapping[str, str] = field(default_factory=dict)
    passthrough: bool = False
    reconnects: int = 0

    @property
    def label(self) -> str:
        """`name` without the user and password of an address: for people, logs and files."""
        return _without_credentials(self.name)

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """All frames, each when it is due; ends with the source or soon after `stop`.

        Raises:
            SourceError: it cannot be opened, or a file breaks off.
        """
        contents = self._pictures() if self.files else self._video(stop)
        begin: float | None = None
        for number, (seconds, content) in enumerate(contents):
            now = time.monotonic()
            if begin is None:
                begin = now - (seconds or 0.0)
            if seconds is None:  # live: it is due now
                due, seconds = now, now - begin
            elif self.paced:
                due = begin + seconds
                if due > now and stop.wait(due - now):
                    return
            else:
                due = now
            if stop.is_set():
                return
            yield Frame(number, seconds, due, content)

    def _pictures(self) -> Iterator[tuple[float, Path]]:
        for number, path in enumerate(self.files):
            yield number / self.fps, path

    def _video(self, stop: threading.Event) -> Iterator[tuple[float | None, bytes | av.VideoFrame]]:
        """(seconds since the first frame, content); no seconds for a live source, which is opened again when lost."""
        pause, live = _FIRST_PAUSE, False
        while not stop.is_set():
            try:
                with self._open() as container:
                    live = live or container.format.name in _LIVE_FORMATS
                    for seconds, content in self._read(container):
                        pause = _FIRST_PAUSE
                        yield None if live else seconds, content
                        if stop.is_set():
                            return
            except (av.FFmpegError, OSError, IndexError) as error:
                if not live:
                    reason = getattr(error, "strerror", None) or "no video in it"
                    raise SourceError(f"{self.label}: {reason}") from error
            if not live or stop.wait(pause):
                return
            pause = min(pause * 2, _LONGEST_PAUSE)
            self.reconnects += 1

    def _open(self) -> av.container.InputContainer:
        if self.name.startswith("/dev/video"):
            try:  # most webcams offer MJPEG, at higher rates than raw pictures
                return av.open(self.name, format="v4l2", options={"input_format": "mjpeg", **self.input_options})
            except av.FFmpegError:
                return av.open(self.name, format="v4l2", options=dict(self.input_options))
        defaults = {"rtsp_transport": "tcp"} if self.name.startswith("rtsp") else {}
        return av.open(self.name, timeout=(TIMEOUT, TIMEOUT), options=defaults | dict(self.input_options))

    def _read(self, container: av.container.InputContainer) -> Iterator[tuple[float, bytes | av.VideoFrame]]:
        stream = container.streams.video[0]
        self.passthrough = stream.codec_context.name == "mjpeg"
        rate = float(stream.average_rate or stream.guessed_rate or self.fps)
        first: float | None = None
        if not self.passthrough:
            stream.thread_type = "AUTO"
        items: Any = container.demux(stream) if self.passthrough else container.decode(stream)
        for number, item in enumerate(items):
            if isinstance(item, av.Packet) and not item.size:  # the flush at the end
                continue
            seconds = number / rate if item.pts is None or item.time_base is None else float(item.pts * item.time_base)
            first = seconds if first is None else first
            yield max(0.0, seconds - first), bytes(item) if isinstance(item, av.Packet) else item


def find(text: str, fps: float, paced: bool, input_options: Mapping[str, str]) -> list[Source]:
    """The streams that one command line argument names: a folder's videos each, its pictures as one.

    Raises:
        SourceError: nothing usable there.
    """
    path = Path(text)
    if "://" in text or text.startswith("/dev/"):
        return [Source(text, paced=paced, input_options=input_options)]
    if path.is_file():
        return [Source(text, paced=paced, input_options=input_options)]
    if not path.is_dir():
        raise SourceError(f"{text}: there is no such file or folder")
    files = sorted(p for p in path.rglob("*") if p.is_file())
    sources = [Source(str(p), paced=paced) for p in files if p.suffix.lower() in VIDEO_SUFFIXES]
    pictures = tuple(p for p in files if p.suffix.lower() in picture_files.SUFFIXES)
    if pictures:
        sources.append(Source(text, pictures, fps, paced))
    if not sources:
        raise SourceError(f"{text}: no videos and no pictures there")
    return sources


def _without_credentials(name: str) -> str:
    return re.sub(r"^(\w+://)[^/]*@", r"\1", name)


def file_stems(sources: list[Source]) -> list[str]:
    """A file name without suffix for each source, all different, without the credentials and query of addresses."""
    stems: list[str] = []
    for source in sources:
        is_address = "://" in source.name
        text = source.label.split("://")[1].split("?")[0] if is_address else Path(source.name).stem
        wanted = re.sub(r"[^\w.-]+", "_", text).strip("_") or "stream"
        stem, number = wanted, 1
        while stem in stems:
            number += 1
            stem = f"{wanted}-{number}"
        stems.append(stem)
    return stems
