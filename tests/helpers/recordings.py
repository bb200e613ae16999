"""Video files with the oddities of real ones, made frame by frame."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition

WIDTH, HEIGHT, FPS = 96, 64, 30

# FFmpeg's display matrix of each EXIF orientation, without its offsets: what turns stored pixels upright.
MATRICES = {
    1: (1, 0, 0, 1),
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}


def record_alpha(path: Path, alpha: np.ndarray, count: int, codec: str = "libvpx-vp9", rate: int = 10) -> Path:
    """Write black frames whose alpha, uint8 [h,w], is what players show, as WebM; each can be decoded alone."""
    drawn = np.dstack([np.zeros((*alpha.shape, 3), np.uint8), alpha])
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options={"auto-alt-ref": "0", "g": "1"})
        stream.width, stream.height, stream.pix_fmt = alpha.shape[1], alpha.shape[0], "yuva420p"
        stream.metadata["alpha_mode"] = "1"
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(drawn, format="rgba").reformat(format="yuva420p")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def record(
    path: Path,
    pixels: np.ndarray,
    count: int = 10,
    *,
    stamps: list[float] | None = None,
    pixel_aspect: Fraction | None = None,
    cover: bool = False,
) -> Path:
    """Write one still picture `count` times, each frame decodable alone: MJPEG for .avi and .mov, else H.264.

    Args:
        pixels: RGB uint8 [h,w,3], of even sizes.
        stamps: seconds of each frame; by default 30 a second.
        cover: put a cover picture before the video.
    """
    height, width = pixels.shape[:2]
    mjpeg = path.suffix in (".avi", ".mov")
    with av.open(str(path), "w") as container:
        art = container.add_stream("mjpeg", rate=1) if cover else None
        stream = container.add_stream("mjpeg" if mjpeg else "libx264", rate=FPS)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuvj420p" if mjpeg else "yuv420p"
        stream.options = {"qmin": "3", "qmax": "3"} if mjpeg else {"preset": "ultrafast", "g": "1", "bf": "0"}
        stream.codec_context.time_base = Fraction(1, 90_000)
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if art is not None:
            art.width, art.height, art.pix_fmt = 32, 32, "yuvj420p"
            art.disposition = Disposition.attached_pic
            container.mux(art.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
            container.mux(art.encode(None))
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            seconds = i / FPS if stamps is None else stamps[i]
            frame.pts, frame.time_base = round(seconds * 90_000), Fraction(1, 90_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def record_sound(path: Path) -> Path:
    """Write half a second of silence with a cover picture."""
    with av.open(str(path), "w", format="mp4") as container:
        sound = container.add_stream("aac", rate=8000)
        art = container.add_stream("mjpeg", rate=1)
        art.width, art.height, art.pix_fmt = 32, 32, "yuvj420p"
        art.disposition = Disposition.attached_pic
        container.mux(art.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        container.mux(art.encode(None))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 4000), np.float32), format="fltp", layout="mono")
        silence.rate = 8000
        container.mux(sound.encode(silence))
        container.mux(sound.encode(None))
    return path


def with_matrix(path: Path, orientation: int) -> Path:
    """Write a display matrix into the track header of an MP4 or MOV file."""
    data = bytearray(path.read_bytes())
    a, b, c, d = (value << 16 for value in MATRICES[orientation])
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], ">i4").tobytes()
    path.write_bytes(data)
    return path


def with_hole(path: Path, number: int) -> Path:
    """Overwrite the packet `number` of a file with zeros."""
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    position, size = packets[number]
    data = bytearray(path.read_bytes())
    data[position : position + size] = bytes(size)
    path.write_bytes(data)
    return path
