"""The censored picture of an event's best frame."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Collection

import numpy as np
from PIL import Image

from nudenet_client.pictures import upright_pixels
from nudenet_tools.pictures import drawing
from nudenet_tools.streams.runner import Served

from .rule_file import Rule

_LARGEST = 640  # pixels, the longer side
_QUALITY = 80


class Evidence:
    """Makes pictures in which the classes of the rule, `hidden`, and what a policy found are made unrecognisable."""

    def __init__(self, hidden: Collection[str], style: drawing.Style) -> None:
        self._hidden, self._style = hidden, style

    def picture(self, served: Served, rule: Rule) -> bytes:
        """As JPEG, at most 640 pixels wide and high."""
        found = served.detections.only({*self._hidden, *rule.classes})
        # A policy also judges what another box hides from the detections.
        judged = served.detections.reasons.get("findings", [])
        if judged:
            count = len(judged)
            found = dataclasses.replace(
                found,
                boxes=np.concatenate([found.boxes, np.array([one["box"] for one in judged], np.float32)]),
                confidences=np.append(found.confidences, np.ones(count, np.float32)),
                class_ids=np.append(found.class_ids, np.zeros(count, np.int64)),
                labels=(*found.labels, *(str(one["class"]) for one in judged)),
            )
        pixels = np.array(upright_pixels(served.jpeg))
        drawing.censor(pixels, found, self._style)
        picture = Image.fromarray(pixels)
        picture.thumbnail((_LARGEST, _LARGEST))
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=_QUALITY)
        return file.getvalue()
