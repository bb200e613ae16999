"""Pixels to JPEG files, for the builder image too, which has neither the clients nor FFmpeg."""

from __future__ import annotations

import numpy as np
import simplejpeg


def encode_jpeg(pixels: np.ndarray, quality: int) -> bytes:
    """RGB uint8 [h,w,3] as a JPEG file's bytes, 4:2:0."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, "RGB", "420")
