"""Seeded odd files for the client side: pictures in every format, EXIF of every kind, listings, recordings.

Each is made of a number: the same number is the same file, so a failure can be looked at again.
"""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from data.vectors import coloured, table
from helpers import profiles
from helpers.hostile import encode, photo, segment

Random = random.Random
WIDTH, HEIGHT = 96, 64

_BASES = [
    encode(photo(WIDTH, HEIGHT), quality=90),
    encode(photo(WIDTH, HEIGHT), quality=90, progressive=True),
    encode(photo(WIDTH, HEIGHT, "L"), quality=90),
    encode(photo(WIDTH, HEIGHT, "CMYK"), quality=90),
]


_PROFILES = [
    profiles.matrix(),
    profiles.matrix(profiles.DISPLAY_P3),
    profiles.matrix(profiles.ADOBE_RGB, profiles.gamma(2.2), version=2),
    coloured.negative(),
    profiles.grey(profiles.gamma(1)),
    profiles.build({b"A2B0": profiles.lut(lambda values: profiles.lab(1 - values), points=5)}, pcs=b"Lab "),
    profiles.build(
        {b"A2B0": profiles.lut(lambda values: profiles.lab(profiles.ink(values)), channels=4, points=5)},
        space=b"CMYK",
        pcs=b"Lab ",
    ),
]


def profile(dice: Random) -> bytes:
    """A colour profile, sometimes damaged."""
    data = bytearray(dice.choice(_PROFILES))
    if dice.random() < 0.3:
        for _ in range(dice.randrange(1, 4)):
            data[dice.choice([dice.randrange(132), dice.randrange(len(data))])] = dice.choice(
                [0, 1, 255, dice.randrange(256)]
            )
    return bytes(data)


def _block(dice: Random, depth: int = 0) -> bytes:
    """A TIFF block with a random directory, often with an orientation, sometimes with one that counts."""
    order = dice.choice("<>")
    entries: list[tuple[int, int, int, bytes]] = []
    for _ in range(dice.randrange(5)):
        tag = dice.choice([0x0112, 0x0112, 0x8769, 0x010F, 0x0100, dice.randrange(1 << 16)])
        kind = dice.choice([3, 3, 3, 4, 1, 2, 8, 9, dice.randrange(1 << 16)])
        count = dice.choice([1, 1, 1, 1, 0, 2, dice.randrange(1 << 32)])
        value = dice.choice([dice.randrange(10), dice.randrange(10), 8, 26, 38, dice.randrange(1 << 16)])
        form = "H" if kind == 3 and dice.random() < 0.9 else "I"
        entries.append((tag, kind, count, struct.pack(order + form, value)))
    if dice.random() < 0.5:
        entries.insert(dice.randrange(len(entries) + 1), table.orientation(dice.randrange(10), order=order))
    count = len(entries) if dice.random() < 0.9 else dice.randrange(1 << 16)
    block = table.tiff(entries, order, dice.choice([42] * 9 + [43]), count)
    if depth == 0 and dice.random() < 0.4:
        block += _block(dice, 1)[8:]
    if dice.random() < 0.1:
        block = block[: dice.randrange(len(block) + 1)]
    return block


def jpeg(seed: int) -> bytes:
    """A JPEG file with random segments of metadata before its frame header, between its tables or before its scan."""
    dice = Random(seed)
    data = dice.choice(_BASES)
    for _ in range(dice.randrange(1, 4)):
        header = dice.choice([b"Exif\0\0"] * 8 + [b"Exif\0\xff", b"Exif\0", b"exif\0\0", b"Exif\0\0Exif\0\0", b""])
        payload = dice.choice(
            [
                lambda: header + _block(dice),  # noqa: B023 (called at once)
                lambda: b"http://ns.adobe.com/xap/1.0/\0tiff:Orientation='6'",
                lambda: dice.randbytes(dice.randrange(40)),
                lambda: b"JFIF\0" + bytes([dice.randrange(4), dice.randrange(4), 0, 0, 1, 0, 1, 0, 0]),
                lambda: b"ICC_PROFILE\0" + dice.randbytes(dice.randrange(30)),
            ]
        )()
        marker = dice.choice([0xE1] * 8 + [0xE0, 0xE2, 0xED, 0xFE])
        if payload.startswith(b"JFIF"):
            marker = 0xE0
        elif payload.startswith(b"ICC"):
            marker = 0xE2
        starts = [2, data.index(b"\xff\xdb"), data.index(b"\xff\xc4"), data.index(b"\xff\xda")]
        at = dice.choice([2, 2, 2, *starts])
        data = data[:at] + segment(marker, payload) + data[at:]
    if dice.random() < 0.3:
        segments = coloured.parts(profile(dice), dice.choice([65519, 200]))
        if dice.random() < 0.2:
            segments.insert(dice.randrange(len(segments) + 1), dice.choice(segments))
        if dice.random() < 0.1:
            segments.pop(dice.randrange(len(segments)))
        data = data[:2] + b"".join(segments) + data[2:]
    if dice.random() < 0.1:  # damage in the headers
        at = dice.randrange(2, data.index(b"\xff\xda"))
        data = data[:at] + dice.randbytes(1) + data[at + 1 :]
    return data


def picture(seed: int) -> bytes:
    """A picture file of another format, sometimes damaged."""
    dice = Random(seed)
    data = dice.choice([_png, _png, _png, _by_pillow, _by_pillow, _tiff])(dice)
    if dice.random() < 0.2:
        for _ in range(dice.randrange(1, 4)):
            at = dice.randrange(len(data))
            data = data[:at] + dice.choice([b"", dice.randbytes(1), dice.randbytes(3)]) + data[at + 1 :]
    if dice.random() < 0.05:
        data = data[: dice.randrange(len(data))]
    return data


def _pixels(dice: Random) -> np.ndarray:
    """RGBA float [h,w,4] in 0..1: smooth colours, and alpha that is full, none, a ramp or all of the picture."""
    colours = np.asarray(photo(WIDTH, HEIGHT)) / 255
    colours = np.roll(colours, dice.randrange(3), axis=2) * dice.choice([1, 1, 0.3])
    ramp = np.linspace(0, 1, WIDTH)[None].repeat(HEIGHT, 0)
    alpha = dice.choice([np.ones_like(ramp), ramp, np.zeros_like(ramp), colours.mean(2)])
    if dice.random() < 0.2:
        colours = np.zeros_like(colours)
    return np.dstack([colours, alpha])


def _png(dice: Random) -> bytes:
    bits = dice.choice([8, 16])
    colour = dice.choice([0, 2, 4, 6])
    rgba = _pixels(dice)
    grey = rgba[..., :3].mean(2, keepdims=True)
    planes = {0: grey, 2: rgba[..., :3], 4: np.dstack([grey, rgba[..., 3]]), 6: rgba}[colour]
    before = _block(dice) if dice.random() < 0.4 else b""
    behind = _block(dice) if dice.random() < 0.1 else b""
    data = table.png(np.round(planes * (255 if bits == 8 else 65535)), colour, bits, before, behind)
    return data if dice.random() < 0.6 else data[:33] + coloured.iccp(profile(dice)) + data[33:]


def _by_pillow(dice: Random) -> bytes:
    drawn = Image.fromarray(np.round(_pixels(dice) * 255).astype(np.uint8))
    kind = dice.choice(["PNG", "WEBP", "GIF", "BMP", "AVIF"])
    modes = {"PNG": ["RGB", "RGBA", "L", "LA", "P", "1"], "WEBP": ["RGB", "RGBA"], "GIF": ["P", "L", "RGBA"]}
    drawn = drawn.convert(dice.choice(modes.get(kind, ["RGB"])))
    options: dict = {"quality": 90} if kind in ("WEBP", "AVIF") else {}
    if kind in ("WEBP", "AVIF") and dice.random() < 0.3:
        options["exif"] = table.tiff([table.orientation(dice.randrange(10))])
    if kind in ("WEBP", "AVIF") and dice.random() < 0.3:
        options["icc_profile"] = profile(dice)
    if kind in ("PNG", "GIF") and drawn.mode == "P" and dice.random() < 0.5:
        options["transparency"] = dice.randrange(16)
    return encode(drawn, format=kind, **options)


def _tiff(dice: Random) -> bytes:
    grey = _pixels(dice)[..., :3].mean(2)
    values = dice.choice(
        [
            lambda: grey.astype(np.float32),
            lambda: (grey * 300).astype(np.float32),
            lambda: np.round(grey * 65535).astype(np.uint16),
            lambda: np.round(grey * 255).astype(np.uint8),
            lambda: np.round(grey * 70000).astype(np.int32),
            lambda: np.round(_pixels(dice) * 255).astype(np.uint8),
        ]
    )()
    target = io.BytesIO()
    Image.fromarray(values).save(target, "TIFF", tiffinfo={0x0112: dice.randrange(10)})
    return target.getvalue()


def listing(seed: int) -> bytes:
    """A text listing in some encoding, with odd names and line ends."""
    dice = Random(seed)
    signs = "aé漢/ .[]*?:%\\\t\x0b\x0c\u2028\x85"
    lines = ["".join(dice.choice(signs) for _ in range(dice.randrange(12))) for _ in range(dice.randrange(8))]
    text = dice.choice(["\n", "\r\n"]).join(lines)
    data = text.encode(dice.choice(["utf-8", "utf-8-sig", "utf-16"]))
    return data if dice.random() < 0.7 else data + b"\ncaf\xe9" + dice.randbytes(dice.randrange(20))


def recording(seed: int, whole: dict[str, bytes], folder: Path) -> Path:
    """One of the `whole` files (name -> content) with bytes changed, cut or moved, in `folder`."""
    dice = Random(seed)
    name = dice.choice(sorted(whole))
    data = bytearray(whole[name])
    for _ in range(dice.randrange(1, 6)):
        at, length = dice.randrange(len(data)), dice.randrange(1, 40)
        change: Callable[[], bytes] = dice.choice([lambda: b"", lambda: bytes(length), lambda: dice.randbytes(length)])  # noqa: B023
        data[at : at + length] = change()
    path = folder / f"{seed}{Path(name).suffix}"
    path.write_bytes(data)
    return path
