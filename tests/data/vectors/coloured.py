"""Pictures with colours of their own: profiles, good, hostile and broken, and what other formats have instead."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from PIL import Image

from helpers import profiles
from helpers.hostile import encode, segment

DOUBTFUL = "unsupported"  # Chromium's releases disagree over it
_PART_BYTES = 65519
_BACKWARDS = profiles.curv([1, 0])
Row = tuple[str, bytes, str]  # name, file, reason why it is refused


def part(profile: bytes, number: int = 1, of: int = 1) -> bytes:
    """One segment of a JPEG file's profile."""
    return segment(0xE2, b"ICC_PROFILE\0" + bytes([number, of]) + profile)


def parts(profile: bytes, size: int = _PART_BYTES) -> list[bytes]:
    """The segments of a profile."""
    pieces = [profile[at : at + size] for at in range(0, len(profile), size)]
    return [part(piece, number, len(pieces)) for number, piece in enumerate(pieces, 1)]


def with_profile(data: bytes, profile: bytes) -> bytes:
    """The JPEG file with a profile."""
    return data[:2] + b"".join(parts(profile)) + data[2:]


def negative() -> bytes:
    """A profile that shows the negative of what is stored."""
    return profiles.matrix(curves=_BACKWARDS)


def _table(colour: Callable[[np.ndarray], np.ndarray], name: bytes = b"A2B0", **options) -> dict[bytes, bytes]:
    return {name: profiles.lut(lambda values: profiles.lab(colour(values)), **options)}


def _lab(*tags: dict[bytes, bytes], **head) -> bytes:
    return profiles.build({name: tag for some in tags for name, tag in some.items()}, pcs=b"Lab ", **head)


def _invert(values: np.ndarray) -> np.ndarray:
    return 1 - values


def _same(values: np.ndarray) -> np.ndarray:
    return values


def ink_profile(change: Callable[[np.ndarray], np.ndarray] = _same) -> bytes:
    """A profile of plain inks, or of what `change` makes of their colours."""
    return _lab(_table(lambda values: change(profiles.ink(values)), channels=4, points=5), space=b"CMYK")


def jpegs(picture: Image.Image) -> Iterator[Row]:
    """JPEG files with profiles."""
    colour = encode(picture, quality=95)
    grey = encode(picture.convert("L"), quality=95)
    ink = encode(picture.convert("CMYK"), quality=95)
    for name, base, profile in _whole(colour, grey, ink):
        yield name, with_profile(base, profile), ""
    for name, profile in _ignored():
        yield f"ignored: {name}", with_profile(colour, profile), ""
    for name, profile in _doubtful():
        yield f"doubtful: {name}", with_profile(colour, profile), DOUBTFUL
    yield "doubtful: grey, empty curve", with_profile(grey, profiles.grey(profiles.curv([]))), DOUBTFUL
    yield from _joined(colour)


def _whole(colour: bytes, grey: bytes, ink: bytes) -> Iterator[tuple[str, bytes, bytes]]:
    matrix, matrix_tags, para = profiles.matrix, profiles.matrix_tags, profiles.para
    swapped = (profiles.SRGB[1], profiles.SRGB[0], profiles.SRGB[2])
    yield "Display P3", colour, matrix(profiles.DISPLAY_P3)
    yield "Adobe RGB", colour, matrix(profiles.ADOBE_RGB, profiles.gamma(2.2))
    yield "ProPhoto", colour, matrix(profiles.PROPHOTO, profiles.gamma(1.8))
    yield "linear light", colour, matrix(curves=profiles.gamma(1))
    yield "version 2", colour, matrix(profiles.DISPLAY_P3, profiles.curv((np.arange(1024) / 1023) ** 2.2), version=2)
    yield "primaries swapped", colour, matrix(swapped)
    yield "negative", colour, negative()
    yield "a negative primary", colour, matrix((tuple(-v for v in profiles.SRGB[0]), *profiles.SRGB[1:]))
    yield "one primary thrice", colour, matrix((profiles.SRGB[0],) * 3)
    yield "all white", colour, matrix(curves=profiles.gamma(0))
    yield "every second value inverted", colour, matrix(curves=profiles.curv([0, 1] * 16))
    yield "twice as bright", colour, matrix(curves=para(1, 1, 2, 0))
    mixed = [para(1, 1, 2, 0), para(1, 1, 2, 0), para(1, 1, 1.5, 0)]
    yield "curves of three kinds", colour, matrix(profiles.DISPLAY_P3, [para(0, 1), _BACKWARDS, profiles.gamma(2)])
    yield "Display P3, channels of two gains", colour, matrix(profiles.DISPLAY_P3, mixed)
    yield (
        "every function type",
        colour,
        matrix(curves=[para(2, 2, 1.1, -0.1, 0.05), para(4, 2, 1, 0, 1, 0.1, 0, 0), para(0, 3)]),
    )
    for bits, form in ((8, "mft"), (16, "mft"), (8, "mAB"), (16, "mAB")):
        yield f"table, negative, {form} of {bits} bits", colour, _lab(_table(_invert, bits=bits, form=form))
    yield "table of all parts", colour, _lab({b"A2B0": _all_parts(para(0, 1.5))})
    yield "table of all parts, XYZ", colour, profiles.build({b"A2B0": _all_parts(para(3, *profiles.SRGB_CURVE))})
    yield "table of all parts but a grid", colour, _lab({b"A2B0": _all_parts(para(1, 1.5, 1.1, -0.1), False)})
    yield "table for colorimetry, negative", colour, _lab(_table(_invert, b"A2B1"))
    yield "tables, the second one negative", colour, _lab(_table(_same, points=17), _table(_invert, b"A2B1"))
    yield "table and matrix", colour, _lab(_table(_invert), matrix_tags(profiles.DISPLAY_P3))
    narrow = ((0.3, 0.3, 0.3), (0.3, 0.35, 0.2), (0.2, 0.2, 0.25))
    yield "table and a narrow matrix", colour, _lab(_table(_invert), matrix_tags(narrow))
    yield "table of four channels", colour, _lab(_table(lambda v: 1 - v[:, :3] * v[:, 3:], channels=4, points=5))
    halved = profiles.lut(lambda v: (1 - v) @ np.array(profiles.SRGB) / 2)
    yield "table of XYZ", colour, profiles.build({b"A2B0": halved})
    yield "floating point table", colour, _lab(_table(_same, b"D2B0"), _table(_invert))
    yield (
        "code points sRGB over a negative",
        colour,
        profiles.build({**matrix_tags(curves=_BACKWARDS), b"cicp": profiles.cicp(1, 13)}),
    )
    for primaries in (4, 5, 6, 8, 9, 10, 11, 12, 22):
        points = profiles.cicp(primaries, 13)
        yield f"code points, primaries {primaries}", colour, profiles.build({**matrix_tags(), b"cicp": points})
    for transfer in (1, 4, 5, 6, 7, 8, 11, 12, 14, 17):
        points = profiles.cicp(1, transfer)
        yield f"code points, transfer {transfer}", colour, profiles.build({**matrix_tags(), b"cicp": points})
    for what, numbers in (("unknown", (2, 2)), ("YCbCr", (1, 13, 1, 1)), ("limited", (1, 13, 0, 0))):
        tags = {**matrix_tags(curves=_BACKWARDS), b"cicp": profiles.cicp(*numbers)}
        yield f"code points, {what}", colour, profiles.build(tags)
    yield "input device", colour, matrix(curves=_BACKWARDS, kind=b"scnr")
    yield "abstract", colour, matrix(curves=_BACKWARDS, kind=b"abst")
    yield "bytes behind it", colour, negative() + bytes(100)
    yield "4 MB", colour, profiles.build({**matrix_tags(curves=_BACKWARDS), b"junk": bytes(4_000_000)})
    yield "grey, negative, in grey", grey, profiles.grey(_BACKWARDS)
    yield "grey, gamma 1, in grey", grey, profiles.grey(profiles.gamma(1))
    yield "grey table in grey", grey, _lab(_table(lambda v: 1 - v.repeat(3, 1), channels=1), space=b"GRAY")
    yield "RGB in grey", grey, negative()
    yield "grey in RGB", colour, profiles.grey(_BACKWARDS)
    yield "RGB in ink", ink, negative()
    for what, profile in (("", ink_profile()), (", negative", ink_profile(_invert))):
        yield f"ink{what}, in ink", ink, profile
        yield f"ink{what}, in RGB", colour, profile


def _all_parts(curve: bytes, has_grid: bool = True) -> bytes:
    """A table with curves, a matrix and, perhaps, a grid."""
    sampled, empty = profiles.curv([0.1, 0.4, 0.9]), profiles.curv([])
    grid = np.random.default_rng(1).integers(0, 256, (2, 3, 4, 3), np.uint8)
    matrix = (0.6, 0.1, 0.2, 0.1, 0.7, 0.1, 0.2, 0.1, 0.5, 0.05, 0, 0.02)
    with_grid = (grid, [curve] * 3) if has_grid else ()
    return profiles.lut_parts([empty if has_grid else curve] * 3, matrix, [sampled] * 3, *with_grid)


def _ignored() -> Iterator[tuple[str, bytes]]:
    """What Chromium cannot use, though it says the negative."""
    table = _table(_invert)[b"A2B0"]
    tags = profiles.matrix_tags(curves=_BACKWARDS)
    yield "no profile", b"no profile at all"
    yield "cut short", negative()[:-10]
    yield "its header alone", negative()[:132]
    yield "another signature", profiles.matrix(curves=_BACKWARDS, signature=b"acsq")
    yield "version 5", profiles.matrix(curves=_BACKWARDS, version=5)
    yield "answers in Luv", profiles.matrix(curves=_BACKWARDS, pcs=b"Luv ")
    yield "for Lab", profiles.matrix(curves=_BACKWARDS, space=b"Lab ")
    yield "grey curve for RGB", profiles.build({b"kTRC": _BACKWARDS})
    yield "no curves", profiles.build({name: tag for name, tag in tags.items() if name.endswith(b"XYZ")})
    yield "a primary missing", profiles.build({name: tag for name, tag in tags.items() if name != b"gXYZ"})
    yield "a curve of another type", profiles.matrix(curves=[_BACKWARDS, _BACKWARDS, b"text" + bytes(20)])
    yield "a curve cut short", profiles.matrix(curves=[_BACKWARDS, _BACKWARDS, profiles.curv([1] * 9)[:-1]])
    yield "a table cut short", _lab({b"A2B0": table[:300]}, profiles.matrix_tags(profiles.DISPLAY_P3))
    yield "a broken table the other way", profiles.build({**tags, b"B2A0": b"nope" + bytes(60)})


def _doubtful() -> Iterator[tuple[str, bytes]]:
    """What some of Chromium's releases apply and others ignore."""
    whole, matrix_tags = negative(), profiles.matrix_tags
    tags = matrix_tags(curves=_BACKWARDS)
    yield "size too large", struct.pack(">I", len(whole) + 1) + whole[4:]
    yield "size too small", struct.pack(">I", 400) + whole[4:]
    yield "white of D65", profiles.matrix(curves=_BACKWARDS, white=(0.95, 1, 1.09))
    yield "version 1", profiles.matrix(curves=_BACKWARDS, version=1)
    yield "unknown class", profiles.matrix(curves=_BACKWARDS, kind=b"????")
    yield "empty curves", profiles.matrix(curves=profiles.curv([]))
    yield "impossible curves", profiles.matrix(curves=profiles.para(3, 1, -1, 1, 0, 0))
    yield "65000 points", profiles.matrix(curves=profiles.curv(np.linspace(1, 0, 65000)))
    yield "black primaries", profiles.matrix(((0, 0, 0),) * 3)
    yield "a tag twice", profiles.build({**matrix_tags(), b"rTRC, again": _BACKWARDS})
    yield "a tag outside of it", profiles.build({**tags, b"text": bytes(8)}).replace(b"text\0", b"text\1")
    yield "a broken description", profiles.build({**tags, b"desc": b"desc\0\0\0\0\0\xff\0\0abcd"})
    yield "a broken white point", profiles.build({**tags, b"wtpt": b"XYZ " + bytes(12)})
    yield "broken code points", profiles.build({**tags, b"cicp": b"nope" + bytes(8)})
    yield "PQ", profiles.build({**matrix_tags(), b"cicp": profiles.cicp(9, 16)})
    yield "HLG", profiles.build({**matrix_tags(), b"cicp": profiles.cicp(9, 18)})
    one_number = [profiles.gamma(2)] * 3
    yield "a table's curve of one number", _lab({b"A2B0": profiles.lut_parts(one_number)})
    mixed = profiles.lut_parts([profiles.para(0, 2), _BACKWARDS, _BACKWARDS])
    yield "a table's curves of two kinds", _lab({b"A2B0": mixed})
    jump = profiles.para(4, 2, 1, 0, 0, 0.5, 0, 0)
    yield "a table, and curves with a jump", _lab(_table(_invert), matrix_tags(curves=jump))
    yield "a table without its matrix", _lab({b"A2B0": profiles.lut_parts([_BACKWARDS] * 3, (), [_BACKWARDS] * 3)})
    yield "table for saturation alone", _lab(_table(_invert, b"A2B2"))
    yield "16 MB", profiles.build({**tags, b"junk": bytes(16_000_000)})


def _joined(colour: bytes) -> Iterator[Row]:
    """Profiles in several parts, some of them missing or there twice."""
    whole = negative()
    three = parts(whole, len(whole) // 3 + 1)
    srgb = profiles.matrix()

    def made(name: str, *segments: bytes) -> Row:
        return f"parts: {name}", colour[:2] + b"".join(segments) + colour[2:], ""

    yield made("three", *three)
    yield made("the last one first", *three[::-1])
    yield made("one missing", *three[:2])
    yield made("one there twice", *three, three[0])
    yield made("all there twice", part(whole), part(whole))
    yield made("negative, then sRGB", part(whole), part(srgb))
    yield made("sRGB, then negative", part(srgb), part(whole))
    yield made("broken, then negative", part(b"no profile"), part(whole))
    yield made("1 of 1, then 1 of 2", part(whole), part(whole[:50], 1, 2))
    yield made("1 of 2, then 1 of 1", part(whole[:50], 1, 2), part(whole))
    yield made("1 of 1, then 2 of 2", part(whole), part(b"more", 2, 2))
    yield made("1 of 2 twice, then 2 of 2", part(whole[:99], 1, 2), part(whole[:99], 1, 2), part(whole[99:], 2, 2))
    yield made("0 of 0", part(whole, 0, 0))
    yield made("1 of 2", part(whole, 1, 2))
    yield made("2 of 1", part(whole, 2, 1))
    yield made("0 of 1", part(whole, 0, 1))
    yield made("two totals", part(whole[:200], 1, 2), part(whole[200:], 2, 3))
    yield made("an empty one", part(whole, 1, 2), part(b"", 2, 2))
    yield made("an empty one first", part(b"", 1, 2), part(whole, 2, 2))
    yield made("a stump behind it", part(whole), segment(0xE2, b"ICC_PROFILE\0\1"))
    yield made("small letters", segment(0xE2, b"icc_profile\0\1\1" + whole))
    yield made("in APP1", segment(0xE1, b"ICC_PROFILE\0\1\1" + whole))
    scan = colour.index(b"\xff\xda")
    yield "parts: right before the scan", colour[:scan] + part(whole) + colour[scan:], ""
    yield "parts: behind the scan", colour[:-2] + part(whole) + colour[-2:], ""


# --- other formats ---


def chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def iccp(profile: bytes) -> bytes:
    """A PNG file's chunk of a profile."""
    return chunk(b"iCCP", b"x\0\0" + zlib.compress(profile))


def gama(value: float) -> bytes:
    """A PNG file's chunk of an exponent, 0.45455 for sRGB's."""
    return chunk(b"gAMA", struct.pack(">I", round(value * 100_000)))


def chrm(values: Sequence[float]) -> bytes:
    """A PNG file's chunk of primaries: x and y of white, red, green and blue."""
    return chunk(b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in values)))


def cicp(*values: int) -> bytes:
    """A PNG file's chunk of code points."""
    return chunk(b"cICP", bytes(values))


_BT709 = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
_P3 = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
_SRGB = chunk(b"sRGB", b"\0")


def _chunks() -> Iterator[tuple[str, bytes, str]]:
    """What stands between a PNG file's header and its pixels."""
    whole = iccp(negative())
    linear = gama(1) + chrm(_BT709)
    yield "Display P3", iccp(profiles.matrix(profiles.DISPLAY_P3)), ""
    yield "negative", whole, ""
    yield "grey, negative", iccp(profiles.grey(_BACKWARDS)), ""
    yield "ink", iccp(_lab(_table(profiles.ink, channels=4, points=5), space=b"CMYK")), ""
    yield "cut short", iccp(negative()[:-9]), ""
    yield "two", whole + iccp(profiles.matrix()), ""
    yield "gAMA", gama(1), ""
    yield "gAMA 0", gama(0) + chrm(_BT709), ""
    yield "cHRM", chrm(_P3), ""
    yield "gAMA and cHRM", linear, ""
    yield "gAMA and cHRM of Display P3", gama(0.45455) + chrm(_P3), ""
    yield "sRGB and gAMA", _SRGB + linear, ""
    yield "iCCP and sRGB", whole + _SRGB, ""
    yield "iCCP and gAMA", linear + iccp(profiles.matrix(profiles.DISPLAY_P3)), ""
    yield "iCCP cut short and gAMA", iccp(negative()[:-9]) + linear, ""
    yield "cICP of Display P3", cicp(12, 13, 0, 1), ""
    yield "cICP of linear light", cicp(1, 8, 0, 1), ""
    yield "cICP of BT.709", cicp(1, 1, 0, 1), ""
    yield "cICP limited", cicp(12, 13, 0, 0), ""
    yield "cICP unknown", cicp(2, 2, 0, 1), ""
    yield "cICP and iCCP", cicp(1, 13, 0, 1) + whole, ""
    yield "cICP unknown and iCCP", cicp(2, 2, 0, 1) + whole, ""
    yield "cICP and gAMA", linear + cicp(12, 13, 0, 1), ""
    yield "PQ", cicp(9, 16, 0, 1), DOUBTFUL
    yield "HLG", cicp(9, 18, 0, 1), DOUBTFUL
    yield "doubtful", iccp(profiles.matrix(curves=_BACKWARDS, white=(0.95, 1, 1.09))), DOUBTFUL


def others(picture: Image.Image) -> Iterator[Row]:
    """Files of other formats."""
    deep = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    see_through = picture.copy()
    see_through.putalpha(128)
    kinds = {
        "RGB": encode(picture, format="PNG"),
        "grey": encode(picture.convert("L"), format="PNG"),
        "grey of 16 bits": encode(deep, format="PNG"),
        "alpha": encode(see_through, format="PNG"),
        "grey and alpha": encode(see_through.convert("LA"), format="PNG"),
        "palette": encode(picture.quantize(16), format="PNG"),
        "transparent colour": encode(picture.quantize(16), format="PNG", transparency=3),
    }
    for kind, data in kinds.items():
        for name, chunks, refused in _chunks():
            is_short = name in ("Display P3", "negative", "grey, negative", "gAMA and cHRM", "cICP of Display P3")
            if kind == "RGB" or is_short:
                yield f"PNG, {kind}, {name}", data[:33] + chunks + data[33:], refused
    plain = kinds["RGB"]
    end = plain.index(b"IEND") - 4
    yield "PNG, behind its pixels", plain[:end] + iccp(negative()) + plain[end:], ""
    for name, profile in (("Display P3", profiles.matrix(profiles.DISPLAY_P3)), ("negative", negative())):
        yield f"WebP, {name}", encode(picture, format="WEBP", quality=95, icc_profile=profile), ""
        yield f"AVIF, {name}", encode(picture, format="AVIF", quality=95, icc_profile=profile), ""
        yield f"BMP, {name}", _bmp(picture, b"DEBM", profile=profile), ""
    yield "WebP with alpha, negative", encode(see_through, format="WEBP", lossless=True, icc_profile=negative()), ""
    yield "AVIF, grey in RGB", encode(picture.convert("L"), format="AVIF", quality=95, icc_profile=negative()), ""
    gif = encode(picture.quantize(64), format="GIF")
    colours = 13 + 3 * (2 << (gif[10] & 7))
    pieces = [negative()[at : at + 255] for at in range(0, len(negative()), 255)]
    extension = b"\x21\xff\x0bICCRGBG1012" + b"".join(bytes([len(piece)]) + piece for piece in pieces) + b"\0"
    yield "GIF, negative", gif[:colours] + extension + gif[colours:], ""
    avif = encode(picture, format="AVIF", quality=95)
    for name, points, refused in (
        ("Display P3", (12, 13), ""),
        ("linear light", (1, 8), ""),
        ("gamma 2.2", (1, 4), ""),
        ("PQ", (9, 16), DOUBTFUL),
        ("HLG", (9, 18), DOUBTFUL),
    ):
        at = avif.index(b"colrnclx") + 8
        yield f"AVIF, code points, {name}", avif[:at] + struct.pack(">HH", *points) + avif[at + 4 :], refused
    linear = ((0.3576, 0.7152, 0.1192), (0.4124, 0.2126, 0.0193), (0.1805, 0.0722, 0.9505))
    yield "BMP, its own primaries, swapped", _bmp(picture, b"\0\0\0\0", linear, 1.0), DOUBTFUL
    yield "BMP, sRGB", _bmp(picture, b"BGRs"), ""


def _bmp(
    picture: Image.Image,
    space: bytes,
    primaries: Sequence[Sequence[float]] = ((0, 0, 0),) * 3,
    gamma: float = 0,
    profile: bytes = b"",
) -> bytes:
    """A bitmap with a header of version 5."""
    pixels = np.ascontiguousarray(np.asarray(picture)[::-1, :, ::-1]).tobytes()
    size = (picture.width, picture.height)
    header = struct.pack("<IiiHHIIiiII", 124, *size, 1, 24, 0, len(pixels), 2835, 2835, 0, 0) + bytes(16) + space
    header += struct.pack("<9I", *(round(value * (1 << 30)) for row in primaries for value in row))
    header += struct.pack("<3I", *[round(gamma * 65536)] * 3)
    header += struct.pack("<4I", 4, 124 + len(pixels) if profile else 0, len(profile), 0)
    return b"BM" + struct.pack("<IHHI", 138 + len(pixels) + len(profile), 0, 0, 138) + header + pixels + profile
