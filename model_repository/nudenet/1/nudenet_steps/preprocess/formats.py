"""What data that is not a JPEG seems to be, for error messages."""

from __future__ import annotations

# First bytes of what people send by mistake.
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"GIF8", "a GIF picture"),
    (b"BM", "a BMP picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"%PDF", "a PDF document"),
    (b"\x1f\x8b", "gzip-compressed data"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"/9j/", "base64 text of a JPEG; send the decoded bytes, or the parameter encoding=base64"),
    (b"iVBORw0KGgo", "base64 text of a PNG; send a JPEG's bytes"),
    (b"data:image", "a data: URL; send the decoded bytes"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 picture"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL picture"),
)


def looks_like(data: bytes) -> str:
    """A name with its article, e.g. ``a PNG picture``; else the first bytes."""
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "a WebP picture"
    if data[4:8] == b"ftyp":
        return "an AVIF or HEIC picture" if data[8:12] in (b"avif", b"heic", b"heix", b"mif1") else "an MP4 video"
    head = data[:256].lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    if head.startswith((b"{", b"[")):
        return "JSON text"
    if head.startswith((b"<?xml", b"<svg")):
        return "XML or SVG text"
    if not data.strip(b"\0"):
        return f"{len(data)} zero bytes"
    return f"data that starts with {data[:8].hex(' ')}"
