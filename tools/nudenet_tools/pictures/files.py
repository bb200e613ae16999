"""Pictures named on a command line, and the files written for them."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import nudenet_client
from nudenet_steps.files import write_whole
from nudenet_tools.pictures import folders, names

STDIN = "-"
JPEG_QUALITY = 95


class OutputError(ValueError):
    """A picture must not or cannot be written; the message says where and why."""


@dataclass(frozen=True)
class Source:
    """One picture to look at: its path or ``-``, and `relative`, where its outputs lie below an output folder."""

    name: str
    relative: Path

    @property
    def shown(self) -> str:
        """`name` as text, see `names.as_text`."""
        return names.as_text(self.name)

    def read(self) -> bytes:
        """The JPEG file to send; other picture formats are encoded.

        Raises:
            nudenet_client.PictureError: unreadable.
        """
        return sys.stdin.buffer.read() if self.name == STDIN else nudenet_client.to_jpeg(self.name)


def find(arguments: Sequence[str], note: Callable[[str], None] = lambda text: None) -> list[Source]:
    """The pictures that the arguments name: files as they are, folders searched below, ``-`` for standard input.

    Args:
        note: called with a line about each folder that has other files, too.

    Raises:
        FileNotFoundError: a folder without pictures; a missing file fails when it is read, as any other file.
        OSError: a folder cannot be read.
    """
    sources: list[Source] = []
    taken: set[Path] = set()
    for argument in arguments:
        path = Path(argument)
        if argument == STDIN:
            found = [(STDIN, Path("stdin"))]
        elif path.is_dir():
            below = folders.search(path)
            left_out = below.left_out(videos=True)
            if not below.pictures:
                reason = left_out or "it is empty"
                raise FileNotFoundError(f"{names.as_text(argument)}: no pictures there; {reason}")
            if left_out:
                note(f"{names.as_text(argument)}: {left_out}")
            found = [(str(p), p.relative_to(path)) for p in below.pictures]
        else:
            found = [(argument, Path(path.name))]
        for name, relative in found:
            sources.append(Source(name, _free_name(relative.with_suffix(".jpg"), taken)))
    return sources


def _free_name(wanted: Path, taken: set[Path]) -> Path:
    """`wanted`, or with a number where an earlier picture has that name."""
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
    taken.add(name)
    return name


class Writer:
    """Writes JPEG files below `folder`, never onto a picture that was read."""

    def __init__(self, folder: Path, sources: Sequence[Source]) -> None:
        self._folder = folder
        self._originals = {os.path.realpath(source.name) for source in sources if source.name != STDIN}

    def write(self, source: Source, pixels: np.ndarray, profile: bytes | None) -> Path:
        """Write `pixels`, RGB uint8 [h,w,3]; the file has no metadata but their colour profile.

        Raises:
            OutputError: the target is an original, or cannot be written.
        """
        target = self._folder / source.relative
        if os.path.realpath(target) in self._originals:
            raise OutputError(f"{names.as_text(str(target))} is an original and stays as it is; choose another folder")
        try:
            encoded = io.BytesIO()
            Image.fromarray(pixels).save(encoded, "JPEG", quality=JPEG_QUALITY, icc_profile=profile)
            write_whole(target, encoded.getvalue())
        except OSError as error:
            raise OutputError(f"{names.as_text(str(target))} cannot be written: {error.strerror or error}") from error
        return target
