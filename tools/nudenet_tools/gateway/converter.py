"""A child process of the gateway: picture files of any format to JPEG, one after the other, over its standard streams.

What strangers send is decoded here, where time and memory are limited and a crash costs one picture.

    out: once, when it is ready: 4 bytes of zero
    in:  4-byte length, JSON {"pixels": N, "frames": N}; 4-byte length, the file
    out: 4-byte length, JSON {"sizes": [bytes of each JPEG]} or {"error": TEXT}; the JPEGs
"""

from __future__ import annotations

import json
import resource
import struct
import sys
import warnings
from collections.abc import Iterator
from typing import BinaryIO

from PIL import Image

from nudenet_client import PictureError, convert, to_jpeg

LENGTH = struct.Struct("<I")


def frames(data: bytes, most_pixels: int, most_frames: int) -> Iterator[bytes]:
    """Each frame of a picture file as a JPEG.

    Args:
        data: a file of any format that Pillow reads.
        most_pixels: of all frames together.
        most_frames: of an animation.

    Raises:
        PictureError: no picture, damaged, or over a limit. No frame is left out.
    """
    found = convert.opened(data)
    if found is None:
        yield data  # Triton says what it seems to be
        return
    with found as opened:
        width, height = opened.size
        kind = opened.format or "picture"
        if width * height > most_pixels:
            raise PictureError(f"{kind} of {width}x{height} pixels, the limit is {most_pixels} pixels")
        try:
            count = int(getattr(opened, "n_frames", 1))
        except Exception as error:
            raise convert.damaged(kind, error) from error
        if count > most_frames:
            raise PictureError(f"{kind} of {count} frames, the limit is {most_frames}; send a video as a stream")
        if width * height * count > most_pixels:
            raise PictureError(
                f"{kind} of {count} frames of {width}x{height} pixels, the limit is {most_pixels} pixels in all"
            )
        for number in range(count):
            try:
                if count > 1:
                    opened.seek(number)
                if opened.size != (width, height):
                    raise PictureError(f"{kind} whose frames differ in size")
                yield to_jpeg(opened)
            except PictureError:
                raise
            except Exception as error:
                raise convert.damaged(f"{kind}: frame {number}", error) from error


def _take(stream: BinaryIO) -> bytes:
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        raise EOFError
    return stream.read(*LENGTH.unpack(head))


def _answer(stream: BinaryIO, files: list[bytes], error: str = "") -> None:
    head = json.dumps({"error": error} if error else {"sizes": [len(file) for file in files]}).encode()
    stream.write(LENGTH.pack(len(head)) + head)
    for file in files:
        stream.write(file)
    stream.flush()


def main() -> None:
    """Answer until the gateway closes the pipe. The argument is the memory limit in bytes."""
    limit = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    Image.MAX_IMAGE_PIXELS = None  # our own limits are looked at first
    warnings.simplefilter("ignore")
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    answers.write(LENGTH.pack(0))
    answers.flush()
    while True:
        try:
            limits, data = json.loads(_take(requests)), _take(requests)
        except EOFError:
            return
        try:
            _answer(answers, list(frames(data, limits["pixels"], limits["frames"])))
        except PictureError as error:
            _answer(answers, [], error.reason)
        except MemoryError:
            _answer(answers, [], "decoding it takes too much memory")


if __name__ == "__main__":
    main()
