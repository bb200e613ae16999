"""Bytes of a JPEG's headers that libjpeg warns of although they change no pixel, and what to write in their place.

Cameras and phones send such files, browsers show them. simplejpeg's strict mode refuses a file at libjpeg's first
warning, so the harmless ones are removed before it decodes; what then still warns is damage. All that libjpeg-turbo
3.1 warns of while it decodes (JWRN_* in its jerror.h):

    NOT_SEQUENTIAL      Ss, Se, Ah, Al of a sequential scan: ignored when decoding           harmless, edited here
    JFIF_MAJOR          JFIF version other than 1.x: ignored when decoding                   harmless, edited here
    BOGUS_ICC           colour profile incomplete or doubled: read apart from the pixels     harmless, edited here
    ADOBE_XFORM         unknown colour transform: taken as YCbCr or YCCK by libjpeg          harmless, edited here
    HUFF_BAD_CODE, ARITH_BAD_CODE, HIT_MARKER, JPEG_EOF, EXTRANEOUS_DATA, MUST_RESYNC        damage, refused
    BOGUS_PROGRESSION   a scan of a progressive file is missing or there twice               damage, refused
    TOO_MUCH_DATA       the calling program asks for too many rows                           does not occur
"""

from __future__ import annotations

from nudenet_steps.preprocess import icc

Edits = list[tuple[int, int]]  # byte offset, new value

_APP0, _APP2, _APP14 = 0xE0, 0xE2, 0xEE
_JFIF, _JFIF_BYTES = b"JFIF\0", 14  # shorter ones are no JFIF to libjpeg
ADOBE, _ADOBE_BYTES = b"Adobe", 12
_ICC, _ICC_BYTES = b"ICC_PROFILE\0", 14
YCBCR, _YCCK = 1, 2  # Adobe's colour transforms
_SCAN_PARAMETERS = (0, 63, 0)  # Ss, Se, Ah and Al of a sequential scan


class HeaderEdits:
    """Collects the edits of one file while its segments are walked."""

    def __init__(self) -> None:
        self.edits: Edits = []
        self._adobe: list[tuple[int, int]] = []  # byte offset and value of the colour transforms
        self._profile: list[tuple[int, int, int, int]] = []  # byte offset, number, total, bytes of each part

    def segment(self, data: bytes, marker: int, payload: int, end: int) -> None:
        """Look at the segment with the payload `data`[`payload`:`end`]."""
        length = end - payload
        if end > len(data):
            return  # truncated: refused later
        if marker == _APP0 and length >= _JFIF_BYTES and data.startswith(_JFIF, payload):
            if data[payload + 5] != 1:
                self.edits.append((payload + 5, 1))
        elif marker == _APP14 and length >= _ADOBE_BYTES and data.startswith(ADOBE, payload):
            self._adobe.append((payload + 11, data[payload + 11]))
        elif marker == _APP2 and length >= _ICC_BYTES and data.startswith(_ICC, payload):
            self._profile.append((payload, data[payload + 12], data[payload + 13], length - _ICC_BYTES))

    def sequential_scan(self, data: bytes, position: int) -> None:
        """Look at the scan header at `position`, where the file is not progressive."""
        at = position + 5 + 2 * data[position + 4]
        stored = data[at : at + len(_SCAN_PARAMETERS)]
        self.edits += [(at + i, right) for i, right in enumerate(_SCAN_PARAMETERS[: len(stored)]) if stored[i] != right]

    def profile(self, data: bytes) -> bytes | None:
        """The colour profile in the segments of `data` seen so far; None where there is none, or not all of it."""
        return icc.join(
            [
                (number, total, data[at + _ICC_BYTES : at + _ICC_BYTES + size])
                for at, number, total, size in self._profile
            ]
        )

    def finish(self, components: int) -> Edits:
        """All edits, once the last segment has been seen.

        Args:
            components: of the picture; they decide what an unknown colour transform is taken for.
        """
        known, assumed = ((0, _YCCK), _YCCK) if components == 4 else ((0, YCBCR), YCBCR)
        self.edits += [(at, assumed) for at, transform in self._adobe if transform not in known]
        if not self._is_whole_profile():
            self.edits += [(at, 0) for at, *_ in self._profile]  # no longer a profile by name
        return self.edits

    def _is_whole_profile(self) -> bool:
        total = len(self._profile)
        numbers = sorted(number for _, number, _, _ in self._profile)
        return numbers == list(range(1, total + 1)) and all(of == total and size for _, _, of, size in self._profile)


def apply(data: bytes, edits: Edits) -> bytes:
    """A copy of `data` with `edits` made; `data` itself where there are none."""
    if not edits:
        return data
    edited = bytearray(data)
    for at, value in edits:
        edited[at] = value
    return bytes(edited)
