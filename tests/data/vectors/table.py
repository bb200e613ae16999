"""The table of odd pictures that cameras, phones and strangers send, made from one small picture.

Server, Python client and Node.js client are held to it. `answers.json` has what Chromium shows for each; after a change
here ask anew: ``PYTHONPATH=tests python -m data.vectors.ask_chromium``.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from data.vectors import coloured, parts
from data.vectors.coloured import chunk
from helpers.hostile import EOI, encode, photo, scan_start, segment

ANSWERS = Path(__file__).with_name("answers.json")
GRID = 6  # cells of the longer side in a recorded answer, 4 of the shorter one
WIDTH, HEIGHT = 96, 64
_SHORT, _LONG, _BYTE, _SIGNED_SHORT = 3, 4, 1, 8


@dataclass(frozen=True)
class Vector:
    """One file. `refused`: what Chromium shows or not, we refuse with this reason, for the detector's sake."""

    name: str
    data: bytes
    refused: str = ""


@dataclass(frozen=True)
class Answer:
    """What Chromium shows: the picture's size, and the mean RGB of each cell of a grid [rows,columns,3]."""

    width: int
    height: int
    cells: np.ndarray


def answers() -> dict[str, Answer | None]:
    """Chromium's answer to every vector; None where it shows nothing."""
    found: dict[str, Answer | None] = {}
    for name, answer in json.loads(ANSWERS.read_text())["answers"].items():
        if answer is None:
            found[name] = None
        else:
            cells = np.frombuffer(bytes.fromhex(answer["cells"]), np.uint8)
            shape = (4, GRID, 3) if answer["width"] >= answer["height"] else (GRID, 4, 3)
            found[name] = Answer(answer["width"], answer["height"], cells.reshape(shape))
    return found


def cells(pixels: np.ndarray) -> np.ndarray:
    """The mean colour of each cell of RGB uint8 [h,w,3], as `Answer.cells`."""
    rows, columns = (4, GRID) if pixels.shape[1] >= pixels.shape[0] else (GRID, 4)
    means = [
        [cell.reshape(-1, 3).mean(0) for cell in np.array_split(row, columns, axis=1)]
        for row in np.array_split(pixels, rows, axis=0)
    ]
    return np.round(means).astype(np.uint8)


def jpegs(picture: Image.Image | None = None) -> list[Vector]:
    """JPEG files, and what looks like one.

    Args:
        picture: RGB, wider than high; by default a smooth one of 96x64 pixels with four different corners.
    """
    picture = photo(WIDTH, HEIGHT) if picture is None else picture
    found = [
        *_orientations(encode(picture, quality=95)),
        *_colours(picture),
        *_headers(picture),
        *_damage(picture),
        *(Vector(f"profile: {name}", data, refused) for name, data, refused in coloured.jpegs(picture)),
    ]
    assert len({vector.name for vector in found}) == len(found)
    return found


# --- orientation ---


def tiff(
    entries: list[tuple[int, int, int, bytes]], order: str = "<", magic: int = 42, count: int | None = None
) -> bytes:
    """A TIFF block with one directory of (tag, type, count, four bytes of value) entries."""
    head = (b"II" if order == "<" else b"MM") + struct.pack(
        order + "HIH", magic, 8, len(entries) if count is None else count
    )
    return (
        head
        + b"".join(struct.pack(order + "HHI", *entry[:3]) + entry[3].ljust(4, b"\0") for entry in entries)
        + bytes(4)
    )


def orientation(value: int, kind: int = _SHORT, count: int = 1, order: str = "<") -> tuple[int, int, int, bytes]:
    """The directory entry of the orientation."""
    form = {_SHORT: "H", _LONG: "I", _BYTE: "B", _SIGNED_SHORT: "h"}[kind]
    return (0x0112, kind, count, struct.pack(order + form, value))


def exif(block: bytes, header: bytes = b"Exif\0\0") -> bytes:
    """The APP1 segment of a TIFF block."""
    return segment(0xE1, header + block)


_MAKE = (0x010F, 2, 4, b"ACM\0")


def _orientations(base: bytes) -> Iterator[Vector]:
    turned = exif(tiff([orientation(6)]))
    xmp = segment(
        0xE1,
        b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf="
        b"'http://www.w3.org/1999/02/22-rdf-syntax-ns#'><rdf:Description rdf:about='' xmlns:tiff="
        b"'http://ns.adobe.com/tiff/1.0/' tiff:Orientation='6'/></rdf:RDF></x:xmpmeta>",
    )

    def first(name: str, *segments: bytes) -> Vector:
        return Vector(f"orientation: {name}", base[:2] + b"".join(segments) + base[2:])

    for value in (0, *range(1, 10), 255, 0x0106, 0x0600):
        yield first(str(value), exif(tiff([orientation(value)])))
    yield first("6, big endian", exif(tiff([orientation(6, order=">")], ">")))
    yield first("6 as LONG", exif(tiff([orientation(6, _LONG)])))
    yield first("6 as LONG, big endian", exif(tiff([orientation(6, _LONG, order=">")], ">")))
    yield first("6 as BYTE", exif(tiff([orientation(6, _BYTE)])))
    yield first("6 as signed short", exif(tiff([orientation(6, _SIGNED_SHORT)])))
    yield first("two values", exif(tiff([(0x0112, _SHORT, 2, struct.pack("<HH", 6, 3))])))
    yield first("no value", exif(tiff([orientation(6, count=0)])))
    yield first("high half of the value set", exif(tiff([(0x0112, _SHORT, 1, struct.pack("<HH", 6, 3))])))
    yield first("behind 70 kB of APP13", *[segment(0xED, b"Photoshop 3.0\0" + bytes(34986))] * 2, turned)
    yield first("XMP alone", xmp)
    yield first("XMP and EXIF without the tag", exif(tiff([_MAKE])), xmp)
    yield first("XMP before EXIF", xmp, exif(tiff([orientation(8)])))
    yield first("header twice", exif(b"Exif\0\0" + tiff([orientation(6)])))
    yield first("padded with another byte", exif(tiff([orientation(6)]), b"Exif\0\xff"))
    yield first("header without padding", exif(tiff([orientation(6)]), b"Exif\0"))
    yield first("lower case header", exif(tiff([orientation(6)]), b"exif\0\0"))
    yield first("two EXIF segments", turned, exif(tiff([orientation(3)])))
    yield first("second EXIF segment alone has the tag", exif(tiff([_MAKE])), turned)
    yield first("first EXIF segment is no TIFF", exif(b"no TIFF at all"), turned)
    yield first("first EXIF segment is empty", exif(b""), turned)
    yield first("first EXIF segment says 9", exif(tiff([orientation(9)])), turned)
    yield first("first EXIF segment says 6 as LONG", exif(tiff([orientation(6, _LONG)])), turned)
    yield first("first EXIF segment says 1", exif(tiff([orientation(1)])), turned)
    yield first("tag twice", exif(tiff([orientation(6), orientation(3)])))
    yield first("tag twice, 9 first", exif(tiff([orientation(9), orientation(6)])))
    yield first("tag twice, LONG first", exif(tiff([orientation(6, _LONG), orientation(6)])))
    yield first("tags out of order", exif(tiff([(0x0213, _SHORT, 1, b"\1\0"), orientation(6), _MAKE])))
    yield first("IFD1 alone has the tag", exif(tiff([_MAKE])[:-4] + struct.pack("<I", 26) + tiff([orientation(6)])[8:]))
    sub = tiff([(0x8769, _LONG, 1, struct.pack("<I", 26))]) + tiff([orientation(6)])[8:]
    yield first("the EXIF directory alone has the tag", exif(sub))
    yield first("directory beyond the end", exif(tiff([orientation(6)])[:4] + b"\xff\xff\xff\x7f"))
    yield first(
        "directory behind a gap", exif(b"II*\0" + struct.pack("<I", 19) + bytes(11) + tiff([orientation(6)])[8:])
    )
    yield first("more entries promised than there are", exif(tiff([orientation(6)], count=500)))
    yield first("entries promised, tag missing", exif(tiff([_MAKE], count=500)))
    yield first("segment ends inside the entry", exif(tiff([orientation(6)])[:-6]))
    yield first("segment ends right after the value", exif(tiff([orientation(6)])[:-6] + b"\0"))
    yield first("segment ends after the entry", exif(tiff([orientation(6)])[:-4]))
    both = [(0x8769, _LONG, 1, struct.pack("<I", 38)), orientation(8)]
    yield first("the EXIF directory before the tag", exif(tiff(both) + tiff([orientation(6)])[8:]))
    yield first("tag before the EXIF directory", exif(tiff(both[::-1]) + tiff([orientation(6)])[8:]))
    pointer = [(0x8769, _LONG, 1, struct.pack("<I", 26))]
    nested = tiff(pointer) + tiff([(0x8769, _LONG, 1, struct.pack("<I", 44))])[8:] + tiff([orientation(6)])[8:]
    yield first("the EXIF directory of the EXIF directory", exif(nested))
    yield first("the EXIF directory is the root itself", exif(tiff([(0x8769, _LONG, 1, b"\x08"), orientation(6)])))
    short = tiff([(0x8769, _SHORT, 1, struct.pack("<H", 26))]) + tiff([orientation(6)])[8:]
    yield first("the EXIF directory by a SHORT", exif(short))
    yield first("the EXIF directory beyond the end", exif(tiff([(0x8769, _LONG, 1, b"\xff\xff\0\0"), orientation(6)])))
    yield first("magic 43", exif(tiff([orientation(6)], magic=43)))
    yield first("order II, numbers big endian", exif(b"II" + tiff([orientation(6, order=">")], ">")[2:]))
    yield first("in APP2", segment(0xE2, b"Exif\0\0" + tiff([orientation(6)])))
    yield first("in a comment", segment(0xFE, b"Exif\0\0" + tiff([orientation(6)])))
    yield first("behind fill bytes", b"\xff\xff\xff", turned)
    yield first("300 entries", exif(tiff([(0xC000 + i, _SHORT, 1, b"\1\0") for i in range(300)] + [orientation(6)])))
    sof = base.index(b"\xff\xc0")
    yield Vector("orientation: EXIF behind the frame header", base[: sof + 19] + turned + base[sof + 19 :])
    sos = base.index(b"\xff\xda")
    yield Vector("orientation: EXIF right before the scan", base[:sos] + turned + base[sos:])
    yield Vector("orientation: EXIF behind the scan", base[:-2] + turned + EOI)
    app0 = 4 + int.from_bytes(base[4:6], "big")
    yield Vector("orientation: no JFIF", base[:2] + turned + base[app0:])


# --- colours ---


def _without(data: bytes, *markers: int) -> bytes:
    """The file without these segments before its scan."""
    kept, position = data[:2], 2
    while data[position + 1] != 0xDA:
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        kept += b"" if data[position + 1] in markers else data[position:end]
        position = end
    return kept + data[position:]


def adobe(transform: int) -> bytes:
    """Adobe's segment."""
    return segment(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, transform))


def with_component_ids(data: bytes, ids: bytes) -> bytes:
    """The file with other component numbers in frame and scan header."""
    out, sof, sos = bytearray(data), data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    for i, number in enumerate(ids):
        out[sof + 10 + 3 * i] = number
        out[sos + 5 + 2 * i] = number
    return bytes(out)


def _colours(picture: Image.Image) -> Iterator[Vector]:
    def made(name: str, data: bytes) -> Vector:
        return Vector(f"colour: {name}", data)

    cmyk = encode(picture.convert("CMYK"), quality=95)
    plain = encode(picture, quality=95, subsampling=0)
    bare = _without(plain, 0xE0)
    yield made("CMYK", cmyk)
    yield made("CMYK without Adobe's marker", _without(cmyk, 0xEE))
    yield made("CMYK with JFIF", cmyk[:2] + plain[2:20] + cmyk[2:])
    # Coded as ink, read as YCCK: odd colours, but one decoder's are all decoders'.
    yield made("YCCK", cmyk[:2] + adobe(2) + _without(cmyk, 0xEE)[2:])
    yield made("four components, Adobe's transform 1", cmyk[:2] + adobe(1) + _without(cmyk, 0xEE)[2:])
    yield made("four components, Adobe's transform 7", cmyk[:2] + adobe(7) + _without(cmyk, 0xEE)[2:])
    yield made("CMYK, turned", cmyk[:2] + exif(tiff([orientation(6)])) + cmyk[2:])
    yield made("grey", encode(picture.convert("L"), quality=95))
    yield made("RGB by Adobe's marker", bare[:2] + adobe(0) + bare[2:])
    yield made("RGB by Adobe's marker, but JFIF", plain[:20] + adobe(0) + plain[20:])
    yield made("RGB by component numbers", with_component_ids(bare, b"RGB"))
    yield made("component numbers 0, 1, 2", with_component_ids(bare, b"\0\1\2"))
    yield made("no marker at all", bare)
    yield made("4:2:0", encode(picture, quality=95, subsampling=2))
    yield made("progressive", encode(picture, quality=95, progressive=True))


# --- what libjpeg warns of, and no pixel changes ---


def with_scan_parameters(data: bytes, parameters: bytes) -> bytes:
    """The file with other Ss, Se and Ah/Al in every scan header."""
    out = bytearray(data)
    position = 0
    while (position := data.find(b"\xff\xda", position)) >= 0:
        at = position + 5 + 2 * data[position + 4]
        out[at : at + 3] = parameters
        position += 2
    return bytes(out)


def multi_scan(picture: Image.Image, parameters: bytes = b"\0\x3f\0") -> bytes:
    """A baseline file with one scan a component, made of three grey ones that share their tables."""
    files = [encode(plane, quality=95) for plane in picture.convert("YCbCr").split()]
    first = files[0]
    frame, sos = first.index(b"\xff\xc0"), first.index(b"\xff\xda")
    components = b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3))
    head = first[:frame] + segment(0xC0, first[frame + 4 : frame + 9] + b"\3" + components)
    after = frame + 2 + int.from_bytes(first[frame + 2 : frame + 4], "big")
    scans = b"".join(
        segment(0xDA, bytes([1, number, 0]) + parameters) + data[scan_start(data) : -2]
        for number, data in zip((1, 2, 3), files, strict=True)
    )
    return head + first[after:sos] + scans + EOI


def icc(profile: bytes, number: int = 1, of: int = 1) -> bytes:
    """One segment of a colour profile."""
    return segment(0xE2, b"ICC_PROFILE\0" + bytes([number, of]) + profile)


def _headers(picture: Image.Image) -> Iterator[Vector]:
    plain = encode(picture, quality=95)
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = bytes(12)  # when it was made
    srgb = bytes(profile)

    def made(name: str, *segments: bytes) -> Vector:
        return Vector(f"header: {name}", plain[:2] + b"".join(segments) + plain[2:])

    for what, parameters in (
        ("Se=0", b"\0\0\0"),
        ("Ss=1", b"\1\x3f\0"),
        ("Ah and Al set", b"\0\x3f\x11"),
        ("all of them", b"\xff\xff\xff"),
    ):
        yield Vector(f"header: {what}", with_scan_parameters(plain, parameters))
        yield Vector(f"header: {what}, three scans", multi_scan(picture, parameters))
    yield Vector("header: three scans", multi_scan(picture))
    yield made("profile", icc(srgb))
    yield made("profile doubled", icc(srgb), icc(srgb))
    yield made("profile incomplete", icc(srgb[:200], 1, 2))
    yield made("profile numbered 0 of 0", icc(srgb, 0, 0))
    yield made("profile numbered 2 of 1", icc(srgb, 2, 1))
    yield made("profile with two totals", icc(srgb[:200], 1, 2), icc(srgb[200:], 2, 3))
    yield Vector("header: JFIF 2.0", plain[:11] + b"\2" + plain[12:])
    yield Vector("header: JFIF 0.9", plain[:11] + b"\0" + plain[12:])
    yield Vector("header: JFIF cut short", plain[:2] + segment(0xE0, b"JFIF\0\1") + plain[20:])
    yield made("JFIF twice, the second 2.0", segment(0xE0, b"JFIF\0\2\0\0\0\1\0\1\0\0"))
    yield made("Adobe's transform 7", adobe(7))
    yield made("Adobe's transform 2", adobe(2))
    yield made("Adobe's marker cut short", segment(0xEE, b"Adobe\0\x64"))
    yield made("everything at once", segment(0xE0, b"JFIF\0\2\0\0\0\1\0\1\0\0"), adobe(7), icc(srgb), icc(srgb))
    progressive = encode(picture, quality=95, progressive=True)
    second = progressive.index(b"\xff\xda", progressive.index(b"\xff\xda") + 2)
    between = segment(0xE0, b"JFIF\0\2\0\0\0\1\0\1\0\0") + adobe(0) + icc(srgb) + exif(tiff([orientation(6)]))
    yield Vector("header: segments between scans", progressive[:second] + between + progressive[second:])
    yield Vector("header: video behind the picture", plain + bytes(200) + b"\0\0\0\x18ftypmp42" + bytes(200))
    yield Vector("header: another picture behind it", plain + encode(picture.transpose(Image.Transpose.ROTATE_90)))


# --- what changes pixels, or is no picture that browsers show ---


def _damage(picture: Image.Image) -> Iterator[Vector]:
    plain = encode(picture, quality=95)
    body = scan_start(plain)
    middle = (body + len(plain)) // 2
    yield Vector("damage: cut in the middle", plain[:middle], "truncated")
    yield Vector("damage: cut, with an end marker", plain[:middle] + EOI, "damaged")
    yield Vector("damage: a hole", plain[: middle - 100] + plain[middle + 100 :], "damaged")
    yield Vector("damage: bytes too many", plain[:-2] + bytes(range(1, 60)) + EOI, "damaged")
    restarts = encode(picture, quality=95, restart_marker_rows=1)
    swapped = restarts.replace(b"\xff\xd0", b"\xff\xd7", 1)
    yield Vector("damage: a wrong restart marker", swapped, "damaged")
    head = with_scan_parameters(plain[:2] + adobe(7) + plain[2:], b"\0\0\x11")
    yield Vector("damage: a hole behind harmless headers", head[: len(head) - 500] + head[-300:], "damaged")
    three = multi_scan(picture, b"\0\0\0")
    yield Vector("damage: a hole in the third of three odd scans", three[: len(three) - 150] + three[-50:], "damaged")
    progressive = encode(picture, quality=95, progressive=True)
    scans = [i for i in range(len(progressive) - 1) if progressive[i : i + 2] == b"\xff\xda"]
    tables = progressive.rindex(b"\xff\xc4", 0, scans[1])
    yield Vector("damage: first scan missing", progressive[: scans[0]] + progressive[tables:], "damaged")
    frame = plain.index(b"\xff\xc0")
    for bits in (12, 16):
        deep = plain[: frame + 4] + bytes([bits]) + plain[frame + 5 :]
        yield Vector(f"unsupported: {bits} bits a sample", deep, "unsupported")
    deep = deep[:frame] + b"\xff\xc1" + deep[frame + 2 : frame + 4] + b"\x0c" + deep[frame + 5 :]
    yield Vector("unsupported: 12 bits a sample, extended frame", deep, "unsupported")
    yield Vector("unsupported: arithmetic coding", plain[:frame] + b"\xff\xc9" + plain[frame + 2 :], "unsupported")
    yield Vector("unsupported: lossless", plain[:frame] + b"\xff\xc3" + plain[frame + 2 :], "unsupported")


# --- other formats, which clients turn into JPEG ---


def others(picture: Image.Image | None = None) -> list[Vector]:
    """PNG, WebP, GIF, BMP and AVIF files that browsers show."""
    picture = photo(WIDTH, HEIGHT) if picture is None else picture
    return [
        *_others(picture),
        *(Vector(f"profile: {name}", data, refused) for name, data, refused in coloured.others(picture)),
        *(Vector(f"parts: {name}", data, refused) for name, data, refused in parts.others(picture)),
    ]


def png(pixels: np.ndarray, colour: int = 2, bits: int = 8, before: bytes = b"", behind: bytes = b"") -> bytes:
    """A PNG file of any depth and kind, e.g. uint16 [h,w,4] with colour 6 and 16 bits; Pillow writes few of them.

    Args:
        before, behind: an eXIf chunk's content, before or behind the pixels.
    """
    height, width = pixels.shape[:2]
    rows = pixels.astype(">u2" if bits == 16 else "u1").reshape(height, -1)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))]
    chunks += [chunk(b"eXIf", before)] if before else []
    chunks += [chunk(b"IDAT", data)]
    chunks += [chunk(b"eXIf", behind)] if behind else []
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def _others(picture: Image.Image) -> Iterator[Vector]:
    rgb = np.asarray(picture)
    grey = np.asarray(picture.convert("L"))
    wide = rgb.astype(np.uint16) * 257
    shade = np.linspace(0, 255, picture.width, dtype=np.uint8)[None].repeat(picture.height, 0)
    see_through = picture.copy()
    see_through.putalpha(Image.fromarray(shade))

    def made(name: str, data: bytes) -> Vector:
        return Vector(f"format: {name}", data)

    yield made("PNG", encode(picture, format="PNG"))
    yield made("PNG, grey of 16 bits", png(grey.astype(np.uint16) * 257, 0, 16))
    yield made("PNG, dark grey of 16 bits", png(grey.astype(np.uint16), 0, 16))
    yield made("PNG, RGB of 16 bits", png(wide, 2, 16))
    yield made("PNG, RGBA of 16 bits", png(np.dstack([wide, shade.astype(np.uint16) * 257]), 6, 16))
    yield made("PNG, grey and alpha of 16 bits", png(np.dstack([grey, shade]).astype(np.uint16) * 257, 4, 16))
    yield made(
        "PNG, grey and alpha", encode(Image.merge("LA", [picture.convert("L"), Image.fromarray(shade)]), format="PNG")
    )
    yield made("PNG with alpha", encode(see_through, format="PNG"))
    drawing = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    drawing.putalpha(Image.fromarray(255 - grey))
    yield made("PNG, all of it in the alpha channel", encode(drawing, format="PNG"))
    palette = picture.quantize(16)
    yield made("PNG, palette", encode(palette, format="PNG"))
    yield made("PNG, palette with a transparent colour", encode(palette, format="PNG", transparency=3))
    yield made("PNG, palette with alpha", encode(palette, format="PNG", transparency=bytes(range(0, 256, 16))))
    yield made("PNG, one bit", encode(picture.convert("1"), format="PNG"))
    yield made(
        "PNG, transparent grey", encode(picture.convert("L").quantize(8).convert("L"), format="PNG", transparency=127)
    )
    yield made("PNG, turned", png(rgb, before=tiff([orientation(6)])))
    yield made("PNG, turned behind its pixels", png(rgb, behind=tiff([orientation(6)])))
    yield made("PNG, eXIf is no TIFF", png(rgb, before=b"no TIFF at all"))
    yield made("PNG, eXIf with a header", png(rgb, before=b"Exif\0\0" + tiff([orientation(6)])))
    yield made("PNG, orientation as LONG", png(rgb, before=tiff([orientation(6, _LONG)])))
    yield made("PNG, mistyped tags", png(rgb, before=tiff([(0x010F, 12, 9, b""), orientation(6)])))
    yield made("WebP", encode(picture, format="WEBP", quality=95))
    yield made("WebP with alpha", encode(see_through, format="WEBP", lossless=True))
    yield made("WebP, turned", encode(picture, format="WEBP", quality=95, exif=b"Exif\0\0" + tiff([orientation(6)])))
    yield made(
        "WebP, turned, EXIF without a header", encode(picture, format="WEBP", quality=95, exif=tiff([orientation(6)]))
    )
    yield made("GIF", encode(picture.quantize(64), format="GIF"))
    yield made("GIF, transparent", encode(palette, format="GIF", transparency=3))
    yield made("BMP", encode(picture, format="BMP"))
    yield made("BMP with alpha", encode(see_through, format="BMP"))
    yield made("AVIF", encode(picture, format="AVIF", quality=95))
    yield made("AVIF with alpha", encode(see_through, format="AVIF", quality=95))
    yield made("AVIF, turned", encode(picture, format="AVIF", quality=95, exif=tiff([orientation(6)])))
    yield made("ICO", encode(picture.resize((64, 64)), format="ICO", sizes=[(64, 64)]))
