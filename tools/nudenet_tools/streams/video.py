"""Frames out of what FFmpeg opens: files, cameras and network streams, as players show them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Any, TypeAlias

import av
import av.container
import av.video.stream
import simplejpeg
from av.stream import Disposition

from nudenet_client import PictureError
from nudenet_tools.streams import addresses, shape
from nudenet_tools.streams.timeline import Timeline

TIMEOUT = 5.0  # seconds without data until a network stream counts as lost
# Demuxers of sources that set the pace themselves; what else comes is played at its own frame rate.
_LIVE_FORMATS = frozenset({"rtsp", "mpjpeg", "v4l2", "video4linux2,v4l2", "sdp"})
_RAW_MJPEG = frozenset({"mjpeg", "jpeg_pipe"})
_NOT_VIDEO = Disposition.attached_pic | Disposition.timed_thumbnails
# FFmpeg's own decoders leave out the alpha of these, which WebM has beside each packet; players show it.
_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"


@dataclass(frozen=True)
class Picture:
    """A decoded frame, not yet encoded: most dropped ones never are."""

    frame: av.VideoFrame
    pixel_aspect: Fraction | None

    def jpeg(self, quality: int) -> bytes:
        """As a JPEG file, as players show it."""
        return simplejpeg.encode_jpeg(shape.pixels(self.frame, self.pixel_aspect), quality, "RGB", "420")


# A JPEG file, a decoded frame, or why there is none.
Content: TypeAlias = bytes | Picture | PictureError


class Video:
    """One opened source; a context manager.

    Attributes:
        live: whether the source sets the pace.
        passthrough: whether frames are sent as they come, being JPEG already.
    """

    def __init__(self, name: str, options: Mapping[str, str], default_rate: float) -> None:
        """Open `name`, an address, a device or a path.

        Raises:
            av.FFmpegError, OSError: it cannot be opened.
            LookupError: no video in it.
        """
        self._trim = False
        self._container = self._open(name, options)
        try:
            self._stream = shown_stream(self._container)
            kind = self._container.format.name
            endless = addresses.is_address(name) and self._container.size < 0
            self.live = kind in _LIVE_FORMATS or (kind in _RAW_MJPEG and endless)
            self.passthrough = self._stream.codec_context.name == "mjpeg"
            self._rate = float(self._stream.average_rate or self._stream.guessed_rate or default_rate)
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def _open(self, name: str, options: Mapping[str, str]) -> av.container.InputContainer:
        if name.startswith("/dev/video"):
            try:  # most webcams offer MJPEG, at higher rates than raw pictures
                return av.open(name, format="v4l2", options={"input_format": "mjpeg", **options})
            except av.FFmpegError:
                return av.open(name, format="v4l2", options=dict(options))
        if not addresses.is_address(name):
            return open_file(name, options)
        defaults = {"rtsp_transport": "tcp"} if name.startswith("rtsp") else {}
        if addresses.is_loopback(name):
            defaults["http_proxy"] = ""  # else FFmpeg asks the environment's proxy for 127.0.0.1, too
        arguments: dict[str, Any] = {
            "timeout": (TIMEOUT, TIMEOUT),
            "options": defaults | dict(options),
            "metadata_errors": "replace",
        }
        try:
            return av.open(addresses.for_ffmpeg(name), **arguments)
        except av.InvalidDataError:
            if not name.startswith("http"):
                raise
            # Some cameras leave out the first boundary, or its dashes. Browsers play that; FFmpeg does if told that
            # it is MJPEG, and takes what stands between the pictures for a part of them.
            self._trim = True
            return av.open(addresses.for_ffmpeg(name), format="mjpeg", **arguments)

    def frames(self) -> Iterator[tuple[float, Content]]:
        """(seconds since the first frame, content) of each, in the order of showing.

        Raises:
            av.FFmpegError, OSError: the source breaks off.
        """
        timeline, aspect, begun = Timeline(self._rate), self._stream.sample_aspect_ratio, False
        decode = decoder(self._stream)
        for packet in self._container.demux(self._stream):
            if self.passthrough and not begun and packet.size:
                self.passthrough = self._is_plain(packet, aspect)
            if self.passthrough:
                if data := self._jpeg(bytes(packet)):
                    begun = True
                    yield timeline.seconds(_stamp(packet)), data
                continue
            try:
                frames = decode(packet)
            except av.FFmpegError as error:  # this packet's trouble; the next ones may be whole
                if packet.size and (begun or not self.live):  # a live stream may be joined in the middle of a group
                    reason = getattr(error, "strerror", None) or str(error)
                    yield timeline.seconds(None), PictureError(f"a packet of the video cannot be decoded: {reason}")
                continue
            for frame in frames:
                begun = True
                yield timeline.seconds(_stamp(frame)), Picture(frame, aspect)

    def _is_plain(self, packet: av.Packet, aspect: Fraction | None) -> bool:
        """Whether players show this JPEG, the first one, as it is stored."""
        if self.live:
            return True  # a camera's page shows each as a picture
        try:
            return all(shape.is_plain(frame, aspect) for frame in packet.decode())
        except av.FFmpegError:
            return True

    def _jpeg(self, packet: bytes) -> bytes:
        if not self._trim:
            return packet
        begin, end = packet.find(_JPEG_START), packet.rfind(_JPEG_END)
        return packet[begin : end + len(_JPEG_END)] if 0 <= begin < end else b""


def decoder(stream: av.video.stream.VideoStream) -> Callable[[av.Packet], list[av.VideoFrame]]:
    """What makes frames of packets of this stream, with their alpha; after a jump in it ask anew."""
    has_alpha = any(key.lower() == "alpha_mode" and value == "1" for key, value in stream.metadata.items())
    name = _WITH_ALPHA.get(stream.codec_context.name) if has_alpha else None
    if name is None:
        return stream.decode
    context = av.CodecContext.create(name, "r")
    assert isinstance(context, av.VideoCodecContext)
    return context.decode


def _stamp(item: av.Packet | av.VideoFrame) -> float | None:
    return None if item.pts is None or item.time_base is None else float(item.pts * item.time_base)


def open_file(path: str, options: Mapping[str, str] = MappingProxyType({})) -> av.container.InputContainer:
    """Open a video file. A colon in a name makes no protocol; titles in other encodings than UTF-8 do no harm.

    Raises:
        av.FFmpegError, OSError: it cannot be opened.
    """
    return av.open(f"file:{path}", options=dict(options), metadata_errors="replace")


def shown_stream(container: av.container.InputContainer) -> av.video.stream.VideoStream:
    """The stream that players show: the best one that is no cover picture.

    Raises:
        LookupError: there is none.
    """
    moving = [stream for stream in container.streams.video if not stream.disposition & _NOT_VIDEO]
    if not moving:
        raise LookupError("only a cover picture, no video in it" if container.streams.video else "no video in it")
    moving = [stream for stream in moving if stream.codec_context is not None]
    if not moving:
        raise LookupError("its video is of an unknown kind")
    best = container.streams.best("video")
    stream = next((stream for stream in moving if best is not None and stream.index == best.index), moving[0])
    if stream.codec_context.name != "mjpeg":
        stream.thread_type = "AUTO"
    return stream
