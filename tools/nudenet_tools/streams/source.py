"""The streams that a command line names: videos, folders of pictures, cameras and network streams."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import av

from nudenet_client import PictureError, to_jpeg
from nudenet_steps.suffixes import PICTURE_SUFFIXES
from nudenet_tools.pictures import folders, names
from nudenet_tools.streams import addresses
from nudenet_tools.streams.video import TIMEOUT, Content, Picture, Video

__all__ = ["TIMEOUT", "Frame", "Source", "SourceError", "file_stems", "find"]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0  # seconds before a lost live source is opened again
_LONGEST_STEM = 100  # characters; file systems end at 255 bytes
_ANIMATIONS = frozenset({".gif"})  # pictures that move: FFmpeg plays them


class SourceError(ValueError):
    """A source that is missing, empty or unreadable; the message names it."""


@dataclass(frozen=True)
class Frame:
    """One frame, not yet encoded where the source is not MJPEG.

    Attributes:
        number: from 0, dropped ones counted.
        time: seconds since the stream's first frame.
        due: `time.monotonic` seconds when it was there to be sent.
    """

    number: int
    time: float
    due: float
    content: Content | Path = field(repr=False)

    def jpeg(self, quality: int) -> bytes:
        """The frame as a JPEG file.

        Raises:
            PictureError: a picture file that cannot be read, or a part of a video that cannot be decoded.
        """
        if isinstance(self.content, PictureError):
            raise self.content
        if isinstance(self.content, Picture):
            return self.content.jpeg(quality)
        return to_jpeg(self.content)


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

    name: str = field(repr=False)  # may hold a password
    files: tuple[Path, ...] = ()
    fps: float = 25.0
    paced: bool = True
    input_options: Mapping[str, str] = field(default_factory=dict)
    passthrough: bool = False
    reconnects: int = 0

    @property
    def label(self) -> str:
        """`name` as text, an address without user and password: for people, logs and files."""
        return addresses.label(self.name) if addresses.is_address(self.name) else names.as_text(self.name)

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

    def _video(self, stop: threading.Event) -> Iterator[tuple[float | None, Content]]:
        """(seconds since the first frame, content); no seconds for a live source, which is opened again when lost."""
        pause, live, empty = _FIRST_PAUSE, False, True
        while not stop.is_set():
            try:
                with Video(self.name, self.input_options, self.fps) as video:
                    live = live or video.live
                    for seconds, content in video.frames():
                        empty = False
                        self.passthrough = video.passthrough
                        pause = _FIRST_PAUSE
                        yield None if live else seconds, content
                        if stop.is_set():
                            return
                    if not live and empty:
                        raise SourceError(f"{self.label}: no frames in it")
            except (av.FFmpegError, OSError, LookupError) as error:
                if not live:
                    reason = getattr(error, "strerror", None) or addresses.hide(str(error), self.name)
                    raise SourceError(f"{self.label}: {reason}") from None  # FFmpeg's own error repeats the address
            if not live or stop.wait(pause):
                return
            pause = min(pause * 2, _LONGEST_PAUSE)
            self.reconnects += 1


def find(
    text: str,
    fps: float,
    paced: bool,
    input_options: Mapping[str, str],
    note: Callable[[str], None] = lambda text: None,
) -> list[Source]:
    """The streams that one command line argument names: a folder's videos each, its pictures as one.

    Args:
        note: called with a line about what a folder has besides.

    Raises:
        SourceError: nothing usable there.
    """
    path = Path(text)
    if addresses.is_address(text) or text.startswith("/dev/"):
        return [Source(text, paced=paced, input_options=input_options)]
    if path.is_file():
        if path.suffix.lower() in PICTURE_SUFFIXES - _ANIMATIONS:
            return [Source(text, (path,), fps, paced)]
        return [Source(text, paced=paced, input_options=input_options)]
    shown = names.as_text(text)
    if not path.is_dir():
        raise SourceError(f"{shown}: there is no such file or folder")
    try:
        found = folders.search(path)
    except OSError as error:
        raise SourceError(f"{shown}: {error}") from error
    videos = found.videos + [picture for picture in found.pictures if picture.suffix.lower() in _ANIMATIONS]
    pictures = tuple(picture for picture in found.pictures if picture.suffix.lower() not in _ANIMATIONS)
    sources = [Source(str(video), paced=paced) for video in sorted(videos)]
    if pictures:
        sources.append(Source(text, pictures, fps, paced))
    if not sources:
        raise SourceError(f"{shown}: no videos and no pictures there; {found.left_out() or 'it is empty'}")
    if left_out := found.left_out():
        note(f"{shown}: {left_out}")
    return sources


def file_stems(sources: list[Source]) -> list[str]:
    """A file name without suffix for each source, all different, without the credentials of addresses."""
    stems: list[str] = []
    for source in sources:
        address = addresses.is_address(source.name)
        text = source.label.split("://")[1] if address else Path(source.name).stem
        wanted = re.sub(r"[^\w.-]+", "_", text)[:_LONGEST_STEM].strip("_") or "stream"
        stem, number = wanted, 1
        while stem in stems:
            number += 1
            stem = f"{wanted}-{number}"
        stems.append(stem)
    return stems
