"""Engines without a network, for rehearsals: they take a known time, and answer one box a picture.

A slow one makes the detector the narrowest step on any machine, a fast one the decoders.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nudenet_steps.preprocess.canvas import CANVASES, Canvas

STRIDES = (8, 16, 32)  # of the detector's three heads


class FastStandIn:
    """Answers at once."""

    reason = ""  # no choice of precision

    seconds_per_batch = 0.0
    seconds_per_picture = 0.0

    def __init__(
        self,
        folder: Path,
        max_batch: int = 8,
        precision: str = "auto",
        threads: int = 0,
        canvases: Sequence[Canvas] = CANVASES,
    ) -> None:
        """Nothing is loaded; see `Engine` for the arguments."""
        self.name, self.precision = f"stand-in, {1e3 * self.seconds_per_picture:g} ms a picture", "no network"

    take = staticmethod(np.from_dlpack)

    def infer(self, parts: Sequence[np.ndarray], alone: bool = True) -> np.ndarray:
        """[n_i,3,height,width] each to FP32 [sum n_i,candidates,6]: class 1 in the middle, the rest zero."""
        count = sum(len(part) for part in parts)
        height, width = parts[0].shape[2:]
        time.sleep(self.seconds_per_batch + count * self.seconds_per_picture)
        output = np.zeros((count, sum(-(-height // 32) * -(-width // 32) * (32 // s) ** 2 for s in STRIDES), 6))
        output[:, 0] = (width / 4, height / 4, 3 * width / 4, 3 * height / 4, 1, 0.9)
        return output.astype(np.float32)


class SlowStandIn(FastStandIn):
    """Three instances answer 185 pictures a second in batches of eight, without a core's help."""

    seconds_per_batch = 0.01
    seconds_per_picture = 0.015
