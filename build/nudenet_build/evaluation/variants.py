"""Seeded variants of a picture: crops, scales, mosaics, light, blur, noise, JPEG quality.

They stand in for pictures that cannot be shipped. Variants of one picture resemble each other, so a set of them
says less than as many different pictures would.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import cv2
import numpy as np

from nudenet_build.jpeg_files import encode_jpeg
from nudenet_steps.preprocess import jpeg

# Width, height: every aspect of by_aspect.py, those of cameras and telephones twice.
SIZES = (
    (1536, 640),
    (1280, 720),
    (1920, 1080),
    (640, 480),
    (1280, 960),
    (720, 720),
    (1080, 1080),
    (720, 960),
    (480, 640),
    (720, 1280),
    (1080, 1920),
)


def decode_full(data: bytes) -> np.ndarray:
    """The whole picture, RGB uint8 [h,w,3], upright."""
    header = jpeg.read_header(data)
    return jpeg.decode(data, header, *header.upright_size)


def variants(data: bytes, name: str, count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """`count` variants of a picture, the same ones for the same name and seed.

    Args:
        data: a JPEG file.
        name: seeds the variants together with `seed`, so that two pictures are not varied alike.

    Yields:
        what was done, and a JPEG file's bytes.
    """
    source = decode_full(data)
    for i in range(count):
        random = np.random.default_rng([seed, zlib.crc32(name.encode()), i])
        width, height = SIZES[random.integers(len(SIZES))]
        kind = ("crop", "mosaic", "place")[i % 3]
        if kind == "crop":
            pixels = _cover(_crop(source, random, least=0.45), width, height)
        else:
            pixels = _compose(source, random, width, height, 1 if kind == "place" else int(random.integers(2, 5)))
        pixels = _disturb(pixels, random)
        quality = int(random.integers(35, 96))
        yield f"{kind} {width}x{height} quality {quality}", encode_jpeg(pixels, quality)


def _crop(pixels: np.ndarray, random: np.random.Generator, least: float) -> np.ndarray:
    """A random window of at least `least` of each side."""
    height, width = pixels.shape[:2]
    h, w = (int(side * random.uniform(least, 1)) for side in (height, width))
    y, x = random.integers(height - h + 1), random.integers(width - w + 1)
    return pixels[y : y + h, x : x + w]


def _cover(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Scale to cover width x height, cut what sticks out evenly on both sides."""
    scale = max(width / pixels.shape[1], height / pixels.shape[0])
    size = max(width, round(pixels.shape[1] * scale)), max(height, round(pixels.shape[0] * scale))
    pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    y, x = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[y : y + height, x : x + width]


def _compose(source: np.ndarray, random: np.random.Generator, width: int, height: int, copies: int) -> np.ndarray:
    """Scaled, perhaps mirrored copies on a blurred background made of the picture itself."""
    canvas = cv2.GaussianBlur(_cover(source, width // 8, height // 8), (0, 0), 6)
    canvas = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_LINEAR)
    for _ in range(copies):
        piece = _crop(source, random, least=0.6)
        limit = min(width / piece.shape[1], height / piece.shape[0])
        scale = limit * random.uniform(0.3, 0.7 if copies > 1 else 1.0)
        size = max(8, int(piece.shape[1] * scale)), max(8, int(piece.shape[0] * scale))
        piece = cv2.resize(piece, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        if random.random() < 0.5:
            piece = piece[:, ::-1]
        y, x = random.integers(height - size[1] + 1), random.integers(width - size[0] + 1)
        canvas[y : y + size[1], x : x + size[0]] = piece
    return canvas


def _disturb(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Light and contrast always, blur and noise now and then."""
    if random.random() < 0.25:
        pixels = cv2.GaussianBlur(pixels, (0, 0), random.uniform(0.8, 3.0) * pixels.shape[1] / 640)
    level = 255 * (pixels / np.float32(255)) ** np.float32(random.uniform(0.5, 1.9))
    level = (level - 128) * np.float32(random.uniform(0.7, 1.2)) + 128
    if random.random() < 0.25:
        level += random.normal(0, random.uniform(3, 15), pixels.shape).astype(np.float32)
    return np.clip(level, 0, 255).astype(np.uint8)
