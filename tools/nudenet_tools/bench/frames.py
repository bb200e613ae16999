"""JPEG frames to measure with: the bundled public-domain pictures, cropped to a video's size."""

from __future__ import annotations

import cv2
import numpy as np

from nudenet_tools import ROOT

DATA = ROOT / "tests" / "data"
SIZES = {"360p": (640, 360), "720p": (1280, 720), "1080p": (1920, 1080), "4K": (3840, 2160)}  # width, height, pixels
ASPECTS = {"16:9": (1280, 720), "9:16": (720, 1280), "4:3": (1108, 831), "3:4": (831, 1108), "1:1": (960, 960)}
QUALITY = 85
NOISE = 5  # grey levels; enlarged pictures are smoother than a camera's, noise brings back its 100 to 170 KB


def frames(size: str = "720p") -> list[bytes]:
    """One frame of each bundled picture, always the same bytes.

    Args:
        size: a key of `SIZES` or of `ASPECTS`.

    Returns:
        JPEG files of quality 85.
    """
    width, height = (SIZES | ASPECTS)[size]
    random = np.random.default_rng(0)
    found = []
    for path in sorted(DATA.glob("*.jpg")):
        picture = cv2.imread(str(path))
        scale = max(width / picture.shape[1], height / picture.shape[0])
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=interpolation)[:height, :width]
        picture = cv2.copyMakeBorder(
            picture, 0, height - picture.shape[0], 0, width - picture.shape[1], cv2.BORDER_REPLICATE
        )
        noisy = np.clip(picture + random.normal(0, NOISE, picture.shape), 0, 255).astype(np.uint8)
        found.append(cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes())
    return found
