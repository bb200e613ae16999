"""Which pictures may share a request without changing each other's answers.

The pictures of one request share one input size of the network, the smallest that holds them all; see docs/canvases.md
of the server. A picture on a larger one has more black around it, which moves its boxes a little. So `detect_many`
sends together what takes the same size alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from .pictures import upright_size

LONGER_SIDE = 320
CANVASES = ((180, 320), (320, 180), (256, 320), (320, 256), (320, 320))  # height, width; the server's own


def canvas(width: int, height: int) -> tuple[int, int]:
    """The server's input size (height, width) for a picture of `width` x `height` pixels."""
    scale = LONGER_SIDE / max(width, height, 1)
    scaled = round(height * scale), round(width * scale)
    fitting = [size for size in CANVASES if size[0] >= scaled[0] and size[1] >= scaled[1]]
    return min(fitting, key=lambda size: size[0] * size[1])


def groups(files: Mapping[int, bytes]) -> list[list[int]]:
    """Keys of `files` (JPEG files) that may share a request, in order of appearance."""
    found: dict[tuple[int, int], list[int]] = {}
    for key, data in files.items():
        found.setdefault(canvas(*upright_size(data)), []).append(key)
    return list(found.values())
