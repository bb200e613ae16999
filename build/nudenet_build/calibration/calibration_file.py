"""A calibration file that grows frame by frame and survives an interruption.

While it grows there are two files beside the target: ``<name>.part``, a .npy with as many frames as have been kept,
and ``<name>.part.jsonl``, whose first line holds the settings and each further line one frame that was looked at.
A frame is on disk before its line is, so whatever a crash leaves can be cut back to whole frames.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


class CalibrationFileError(ValueError):
    """The unfinished file belongs to another run; the message says how to go on."""


class CalibrationFile:
    """Appends FP32 [3,height,width] frames; constant memory.

    Args:
        path: the .npy to be.
        shape: (3, height, width).
        settings: what must be the same for an interrupted run to go on.
        restart: throw away an unfinished file.

    Raises:
        CalibrationFileError: an unfinished file with other settings is there, and holds a frame.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int], settings: Mapping[str, Any], restart: bool) -> None:
        self.path, self.shape = path, shape
        self._part, self._log = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.jsonl")
        self._settings = json.dumps(settings, sort_keys=True)
        self._header = len(self._npy_header(0))
        self.records: list[dict[str, Any]] = []
        self.frames = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        if restart or not self._resume():
            self._part.write_bytes(self._npy_header(0))
            self._log.write_text(self._settings + "\n")
        self._data_file = self._part.open("r+b")
        self._data_file.seek(0, os.SEEK_END)
        self._log_file = self._log.open("a")

    def _npy_header(self, count: int) -> bytes:
        """Always of one length: numpy reserves room for the first axis to grow."""
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "<f4", "fortran_order": False, "shape": (count, *self.shape)}
        )
        return header.getvalue()

    def _resume(self) -> bool:
        """Go on where an earlier run stopped; False where none did, or none that kept a frame: nothing is lost then."""
        if not (self._log.exists() and self._part.exists()):
            return False
        settings, *lines = self._log.read_text().split("\n")
        if not any(json.loads(line)["kept"] for line in lines[:-1]):
            return False
        if settings != self._settings:
            raise CalibrationFileError(
                f"{self._part} is unfinished and was begun with other sources or options; "
                "run that command again, or add --restart to throw it away"
            )
        frame_bytes = 4 * int(np.prod(self.shape))
        whole = max(0, self._part.stat().st_size - self._header) // frame_bytes
        for line in lines[:-1]:  # what follows the last line break was cut off in writing
            record = json.loads(line)
            if record["kept"] and self.frames == whole:
                break
            self.records.append(record)
            self.frames += record["kept"]
        self._log.write_text("".join(f"{line}\n" for line in [settings, *map(json.dumps, self.records)]))
        os.truncate(self._part, self._header + self.frames * frame_bytes)
        return True

    def add(self, record: Mapping[str, Any], frame: np.ndarray | None) -> None:
        """Append a frame that was looked at: kept with its data, or only noted (`frame` None)."""
        if frame is not None:
            if frame.shape != self.shape or frame.dtype != np.float32:
                raise ValueError(f"frame is {frame.dtype} {frame.shape}, expected float32 {self.shape}")
            self._data_file.write(np.ascontiguousarray(frame).data)
            self._data_file.flush()
            self.frames += 1
        self.records.append({**record, "kept": frame is not None})
        self._log_file.write(json.dumps(self.records[-1]) + "\n")
        self._log_file.flush()

    def close(self) -> None:
        """Keep the unfinished files for a later run."""
        self._data_file.close()
        self._log_file.close()

    def finish(self) -> None:
        """Write the final count into the header and move the file to its place."""
        self._data_file.seek(0)
        self._data_file.write(self._npy_header(self.frames))
        self.close()
        self._part.replace(self.path)
        self._log.unlink()
