"""Picture and video files below a folder. What is left out is counted, never passed over in silence."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nudenet_steps.suffixes import PICTURE_SUFFIXES, VIDEO_SUFFIXES

_PICTURE_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_VIDEO_STARTS = (b"\x1aE\xdf\xa3", b"FLV\x01")


@dataclass
class Found:
    """Files of one folder, sorted by name: `pictures`, `videos`, and the number of others by suffix."""

    pictures: list[Path] = field(default_factory=list)
    videos: list[Path] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)

    def left_out(self, *, videos: bool = False) -> str:
        """For people: how many files were left out, e.g. ``3 files left out: 2 .txt, 1 without suffix``; or nothing.

        Args:
            videos: count videos among them.
        """
        others = self.others + (Counter(path.suffix.lower() for path in self.videos) if videos else Counter())
        if not others:
            return ""
        kinds = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in others.most_common(5))
        more = ", ..." if len(others) > 5 else ""
        total = sum(others.values())
        return f"{total} file{'s' if total > 1 else ''} left out: {kinds}{more}"


def search(folder: Path) -> Found:
    """Look through `folder` and all folders below it, links to folders included.

    Files without a suffix are taken by their first bytes.

    Raises:
        OSError: a folder cannot be read.
    """
    found = Found()
    for path in sorted(_files(folder)):
        kind = path.suffix.lower()
        if kind in PICTURE_SUFFIXES or (not kind and _starts(path, _PICTURE_STARTS, b"WEBP", b"avif", b"heic")):
            found.pictures.append(path)
        elif kind in VIDEO_SUFFIXES or (not kind and _starts(path, _VIDEO_STARTS, b"AVI ", b"isom", b"mp42", b"qt  ")):
            found.videos.append(path)
        else:
            found.others[kind] += 1
    return found


def _files(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise error

    seen: set[tuple[int, int]] = set()
    for place, below, names in os.walk(folder, onerror=fail, followlinks=True):
        status = os.stat(place)  # noqa: PTH116
        if (status.st_dev, status.st_ino) in seen:  # a link back to a folder above
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        for name in names:
            path = Path(place, name)
            if path.is_file():  # no sockets and pipes, no dangling links
                yield path


def _starts(path: Path, starts: tuple[bytes, ...], *brands: bytes) -> bool:
    """Whether the file begins like one of these; `brands` stand at byte 8, behind RIFF or ftyp."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return False
    return head.startswith(starts) or ((head[:4] == b"RIFF" or head[4:8] == b"ftyp") and head[8:12] in brands)
