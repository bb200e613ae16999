"""One video: its frames through the server, the result as JSON, and the way back into it after a kill."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nudenet_client import Client, Parameters, PictureError
from nudenet_tools.streams.source import Frame, Source

from .merging import Merged

SCHEMA = 1
_SAVE_EVERY = 5.0  # seconds


@dataclass(frozen=True)
class Settings:
    """What a result depends on besides the video.

    Attributes:
        every: analyse each so manieth frame, from the first on.
        gap: seconds; see `Merged.add`.
        stop_at_block: end at the first frame with the verdict ``block``.
        quality: of frames that have to be encoded as JPEG.
    """

    parameters: Parameters
    every: int = 1
    gap: float = 1.0
    stop_at_block: bool = False
    quality: int = 85


def analyse(client: Client, source: Source, settings: Settings, result: Path, stop: threading.Event) -> dict[str, Any]:
    """Analyse one video and write `result`; go on where an earlier run of the same settings was stopped or killed.

    Returns:
        what the file holds; ``complete`` is False where `stop` came first. Then the next call goes on.

    Raises:
        SourceError: the video cannot be read.
        ClientError: the server cannot be reached, or refuses the parameters; the next call goes on.
    """
    result.parent.mkdir(parents=True, exist_ok=True)
    progress = result.with_suffix(".partial.json")
    identity = _identity(source, settings)
    merged = _load(progress, identity)
    saved = time.monotonic()
    frames: deque[Frame] = deque()
    ended = threading.Event()

    def pictures() -> Iterator[bytes]:
        for frame in source.frames(stop):
            if ended.is_set():
                return
            if frame.number % settings.every or frame.number <= merged.last_frame:
                continue
            frames.append(frame)
            try:
                yield frame.jpeg(settings.quality)
            except PictureError:
                yield b""  # is refused, and so counted as failed
        if not stop.is_set():
            ended.set()

    try:
        if not (settings.stop_at_block and merged.blocked is not None):
            for found in client.detect_many(pictures(), settings.parameters, on_error="report"):
                frame = frames.popleft()
                merged.add(frame.number, round(frame.time, 3), found, settings.gap)
                if settings.stop_at_block and merged.blocked is not None:
                    break
                if time.monotonic() - saved >= _SAVE_EVERY:
                    _write(progress, {"identity": identity, "merged": dataclasses.asdict(merged)})
                    saved = time.monotonic()
    except BaseException:
        _write(progress, {"identity": identity, "merged": dataclasses.asdict(merged)})
        raise
    stopped = settings.stop_at_block and merged.blocked is not None
    complete = stopped or ended.is_set()
    ended.set()
    answer = _answer(source, settings, merged, complete, stopped)
    if complete:
        _write(result, answer)
        progress.unlink(missing_ok=True)
    else:
        _write(progress, {"identity": identity, "merged": dataclasses.asdict(merged)})
    return answer


def _answer(source: Source, settings: Settings, merged: Merged, complete: bool, stopped: bool) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "source": source.label,
        "policy": settings.parameters.policy,
        **merged.hashes,
        "every": settings.every,
        "gap": settings.gap,
        "complete": complete,
        "stopped_at_block": stopped,
        "verdict": merged.verdict or None,
        "frames": {"analysed": merged.analysed, "failed": merged.failed, "last": merged.last_frame},
        "duration": merged.last_time,
        "segments": merged.all_segments(),
    }


def _identity(source: Source, settings: Settings) -> dict[str, Any]:
    """What must be equal to go on with an earlier run."""
    identity: dict[str, Any] = {"schema": SCHEMA, "source": source.label}
    paths = [path for path in (Path(source.name), *source.files) if path.is_file()]
    identity["files"] = [[stat.st_size, stat.st_mtime_ns] for stat in (path.stat() for path in paths)]
    return identity | {"settings": json.loads(json.dumps(dataclasses.asdict(settings)))}


def _load(progress: Path, identity: dict[str, Any]) -> Merged:
    """What an earlier run had; nothing where there was none, or where its file is another one or damaged."""
    try:
        saved = json.loads(progress.read_text(encoding="utf-8"))
        return Merged.load(saved["merged"]) if saved["identity"] == identity else Merged()
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return Merged()


def _write(path: Path, content: dict[str, Any]) -> None:
    """All or nothing: a kill leaves the old file."""
    new = path.with_name(path.name + ".new")
    with new.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
