"""How a picture travels: its bytes as they are, or base64 where a request can carry text only. No Triton import."""

from __future__ import annotations

import binascii

from nudenet_steps.preprocess.jpeg import JpegError

RAW, BASE64 = "raw", "base64"
ENCODINGS = (RAW, BASE64)


def decode(text: bytes, max_bytes: int) -> bytes | JpegError:
    """A picture out of its base64 text: the standard alphabet, padded, without white space or line ends.

    Args:
        text: as it came.
        max_bytes: of the picture; a longer text is refused before it is decoded.

    Returns:
        the picture, or the error that refuses it.
    """
    longest = (max_bytes + 2) // 3 * 4
    if len(text) > longest:
        return JpegError(
            "too_many_bytes", f"{len(text)} characters of base64, the limit is {longest}; send a smaller picture"
        )
    if text.startswith(b"data:"):
        return JpegError(
            "not_base64", "a data: URL where encoding=base64 expects base64 alone; send what follows the comma"
        )
    try:
        data = binascii.a2b_base64(text)
    except binascii.Error:
        data = b""
    if binascii.b2a_base64(data, newline=False) != text:  # the decoder passes over what is no base64
        hint = "; a JPEG's bytes are sent without encoding=base64" if text.startswith(b"\xff\xd8") else ""
        return JpegError("not_base64", f"not base64 (RFC 4648 section 4: padded, no line ends){hint}")
    return data
