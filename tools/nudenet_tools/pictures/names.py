"""Names of files as text: file names are bytes, which JSON, Parquet and terminals do not take."""

from __future__ import annotations

import os
import re
import urllib.parse

# What no text file takes: bytes that are not UTF-8 (as Python has them in names), and what steers a terminal.
_UNSHOWABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_FILE_ADDRESS = "file://"


def as_text(name: str) -> str:
    """`name` itself where it is plain text, else its ``file://`` address, which `as_path` reads back."""
    if _UNSHOWABLE.search(name) is None:
        return name
    return _FILE_ADDRESS + urllib.parse.quote(os.fsencode(os.path.abspath(name)))  # noqa: PTH100 (links stay)


def as_path(text: str) -> str:
    """The path that `as_text` was given: of a ``file://`` address the path behind it, else the text itself."""
    if not text.startswith(_FILE_ADDRESS):
        return text
    return os.fsdecode(urllib.parse.unquote_to_bytes(text[len(_FILE_ADDRESS) :]))
