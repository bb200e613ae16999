"""Where frames come from: folders, globs, picture files, videos and camera streams.

Every frame leaves this module as the bytes of a JPEG file, so that it takes the way a client's picture takes.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.container
import numpy as np

from nudenet_client.errors import PictureError
from nudenet_client.pictures import JPEG_QUALITY, file_to_jpeg
from nudenet_steps.suffixes import PICTURE_SUFFIXES, VIDEO_SUFFIXES
from nudenet_tools.pictures import names
from nudenet_tools.streams import addresses, video

SEEK_AHEAD = 5.0  # seconds; nearer frames are reached faster by decoding than by seeking
DEFAULT_RATE = 25.0  # frames a second, where the source does not say


class SourceError(ValueError):
    """A source that is missing, empty or unreadable; the message names it."""


@dataclass(frozen=True)
class Frame:
    """One frame to be: `key` names it in its source and stays the same from run to run, `title` names it to people."""

    source: str
    key: str
    data: bytes
    title: str


@dataclass(frozen=True)
class Pictures:
    """Picture files named by one folder, glob or path."""

    name: str
    files: tuple[Path, ...]

    def count(self) -> int:
        """How many frames there are."""
        return len(self.files)

    def read(self, wanted: int, done: frozenset[str]) -> Iterator[Frame | SourceError]:
        """Evenly spread files, `wanted` of them, less those whose keys are in `done`."""
        for i in evenly(self.count(), wanted):
            path = self.files[i]
            key = names.as_text(str(path))
            if key in done:
                continue
            try:
                yield Frame(self.name, key, read_picture(path), key)
            except SourceError as error:
                yield error


@dataclass(frozen=True)
class Video:
    """A video file."""

    name: str
    seconds: float
    rate: float  # frames a second

    def count(self) -> int:
        """How many frames there are, as far as the file's header knows."""
        return max(1, int(self.seconds * self.rate))

    def read(self, wanted: int, done: frozenset[str]) -> Iterator[Frame | SourceError]:
        """Evenly spread frames, `wanted` of them, less those whose keys are in `done`."""
        times = {f"{i / self.rate:.3f}": i / self.rate for i in evenly(self.count(), wanted)}
        try:
            with video.open_file(self.name) as container:
                stream = video.shown_stream(container)
                tick = stream.time_base or Fraction(1, av.time_base)
                start = float((stream.start_time or 0) * tick)
                decoder, position = _decode(container, stream), 0.0
                for key, seconds in times.items():
                    if key in done:
                        continue
                    if seconds - position > SEEK_AHEAD:
                        container.seek(int((start + seconds) / tick), stream=stream)
                        decoder = _decode(container, stream)
                    for frame in decoder:
                        position = (frame.time or 0.0) - start
                        if position >= seconds - 0.5 / self.rate:
                            data = video.Picture(frame, stream.sample_aspect_ratio).jpeg(JPEG_QUALITY)
                            yield Frame(self.name, key, data, f"{names.as_text(self.name)}, second {key}")
                            break
        except (av.FFmpegError, LookupError) as error:
            yield SourceError(f"{names.as_text(self.name)}: {error}")


@dataclass(frozen=True)
class Stream:
    """A camera's MJPEG or RTSP address: endless, so sampled by time."""

    address: str  # with the camera's credentials
    interval: float  # seconds between samples

    @property
    def name(self) -> str:
        """The address without credentials: it is shown, and stands in files."""
        return addresses.label(self.address)

    def count(self) -> int:
        """A stream fills any share."""
        return 1 << 31

    def read(self, wanted: int, done: frozenset[str]) -> Iterator[Frame | SourceError]:
        """One frame each `interval` seconds of stream time until `wanted` are there, those in `done` included."""
        number, due = len(done), 0.0
        try:
            with video.Video(self.address, {}, DEFAULT_RATE) as opened:
                for now, content in opened.frames():
                    if number >= wanted:
                        return
                    if isinstance(content, PictureError) or (number > len(done) and now < due):
                        continue
                    data = content if isinstance(content, bytes) else content.jpeg(JPEG_QUALITY)
                    yield Frame(self.name, str(number), data, f"{self.name}, frame {number}")
                    number, due = number + 1, now + self.interval
        except (av.FFmpegError, OSError, LookupError) as error:
            yield SourceError(f"{self.name}: {addresses.hide(str(error), self.address)}")


@dataclass(frozen=True)
class Unreadable:
    """A file among others that is no video, whatever its name says."""

    name: str
    error: SourceError

    def count(self) -> int:
        """It is looked at once."""
        return 1

    def read(self, wanted: int, done: frozenset[str]) -> Iterator[Frame | SourceError]:
        """Why there is no frame."""
        if wanted and str(self.error) not in done:
            yield self.error


Source = Pictures | Video | Stream | Unreadable


def open_source(text: str, interval: float = 1.0) -> list[Source]:
    """The sources that one command line argument names.

    Args:
        text: folder (searched below), glob, picture, video, or rtsp:// or http:// address.
        interval: seconds between samples of a stream.

    Raises:
        SourceError: nothing usable there.
    """
    if addresses.is_address(text):
        return [Stream(text, interval)]
    path = Path(text)
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
    elif path.is_file():
        files = [path]
    else:
        files = sorted(Path(p) for p in glob.glob(text, recursive=True) if Path(p).is_file())  # noqa: PTH207  # absolute too
    pictures = tuple(p for p in files if p.suffix.lower() in PICTURE_SUFFIXES)
    videos = [p for p in files if p.suffix.lower() in VIDEO_SUFFIXES]
    sources: list[Source] = [Pictures(text, pictures)] if pictures else []
    for video_path in videos:
        try:
            sources.append(_open_video(video_path))
        except SourceError as error:
            if path.is_file():  # named alone
                raise
            sources.append(Unreadable(str(video_path), error))
    if not sources:
        known = " ".join(sorted(PICTURE_SUFFIXES | VIDEO_SUFFIXES))
        raise SourceError(f"{text}: no picture or video there ({len(files)} files looked at; known: {known})")
    return sources


def _open_video(path: Path) -> Video:
    try:
        with video.open_file(str(path)) as container:
            stream = video.shown_stream(container)
            rate = float(stream.average_rate or stream.guessed_rate or DEFAULT_RATE)
            if stream.duration and stream.time_base:
                seconds = float(stream.duration * stream.time_base)
            elif container.duration:
                seconds = container.duration / av.time_base
            else:  # a raw MJPEG file says nothing of its length
                seconds = sum(packet.size > 0 for packet in container.demux(stream)) / rate
    except (av.FFmpegError, LookupError) as error:
        raise SourceError(f"{names.as_text(str(path))}: not a readable video ({error})") from error
    return Video(str(path), seconds, rate)


def evenly(count: int, wanted: int) -> list[int]:
    """Up to `wanted` indices spread evenly over 0..count-1, ascending."""
    if wanted >= count:
        return list(range(count))
    return [int(i) for i in (np.arange(wanted) + 0.5) * count / wanted]


def shares(counts: Sequence[int], wanted: int) -> list[int]:
    """How many of `wanted` frames each source gives: equal shares, what a small one cannot give goes to the others."""
    result = [0] * len(counts)
    left = wanted
    for nth, i in enumerate(sorted(range(len(counts)), key=lambda i: counts[i])):
        result[i] = min(counts[i], left // (len(counts) - nth))
        left -= result[i]
    return result


def read_picture(path: Path) -> bytes:
    """The picture at `path` as a JPEG file's bytes, as the Python client would send it.

    Raises:
        SourceError: unreadable.
    """
    try:
        return file_to_jpeg(path.read_bytes())
    except (OSError, PictureError) as error:
        raise SourceError(f"{names.as_text(str(path))}: {error}") from error


def _decode(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """Frames from where the container is, without those that cannot be decoded."""
    decode = video.decoder(stream)
    for packet in container.demux(stream):
        try:
            frames = decode(packet)
        except av.FFmpegError:  # this packet's trouble
            continue
        yield from frames
