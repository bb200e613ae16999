"""API keys: 256 random bits each, of which only the SHA-256 is stored. The file is read anew when it changes."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from pathlib import Path

_NAME = r"[A-Za-z0-9._-]{1,64}"
_LINE = re.compile(rf"([0-9a-f]{{64}})\s+({_NAME})")


class KeyFileError(ValueError):
    """A key file that is missing or has a line that is none; the message names file and line."""


def new_key() -> str:
    """A key of 256 random bits, safe in headers and shells."""
    return secrets.token_urlsafe(32)


def line(key: str, name: str) -> str:
    """What stands in the key file for `key`; `name` says whose it is.

    Raises:
        KeyFileError: the name cannot stand there.
    """
    if not re.fullmatch(_NAME, name):
        raise KeyFileError(f"a name has 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-', got {name!r}")
    return f"{hashlib.sha256(key.encode()).hexdigest()} {name}"


def add(path: Path, name: str) -> str:
    """A new key, whose line is added to the key file; the file is made where there is none.

    Raises:
        KeyFileError: the name is wrong, or the file cannot be written.
    """
    key = new_key()
    text = f"{line(key, name)}\n"
    try:
        with path.open("ab+") as file:
            file.seek(0)
            present = file.read()
            file.write((b"" if not present or present.endswith(b"\n") else b"\n") + text.encode())
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be written: {error.strerror}") from error
    return key


class KeyFile:
    """Lines of ``SHA256 NAME``; empty lines and ``#`` comments are passed over.

    To replace a key, add a line for the new one, hand it out, remove the old line: no restart.

    Raises:
        KeyFileError: the file is missing, wrong or has no key.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._keys: dict[str, str] = {}  # SHA-256 -> name
        self.error = ""  # why the file as it is now is not in use
        self._read(self._look())

    def name(self, key: str) -> str | None:
        """Whose key it is; None: nobody's. Takes the same time for every key."""
        self._refresh()
        digest = hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()
        found = None
        for known, name in self._keys.items():
            if hmac.compare_digest(known, digest):
                found = name
        return found

    def is_current(self) -> bool:
        """Whether the file as it is now is in use."""
        self._refresh()
        return not self.error

    def _refresh(self) -> None:
        """Read the file again if it has changed. A wrong one changes nothing: the keys before it stay in force."""
        try:
            stamp = self._look()
            if stamp != self._stamp:
                self._read(stamp)
        except KeyFileError as error:
            self.error = str(error)

    def _look(self) -> tuple[int, int, int]:
        try:
            status = self._path.stat()
        except OSError as error:
            raise KeyFileError(f"{self._path}: cannot be read: {error.strerror}") from error
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read(self, stamp: tuple[int, int, int]) -> None:
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeError) as error:
            raise KeyFileError(f"{self._path}: cannot be read: {error}") from error
        keys = {}
        for number, text in enumerate(lines, 1):
            text = text.partition("#")[0].strip()
            if not text:
                continue
            match = _LINE.fullmatch(text)
            if match is None:
                raise KeyFileError(f"{self._path}:{number}: expected a SHA-256 in hexadecimal, a space and a name")
            keys[match[1]] = match[2]
        if not keys:
            raise KeyFileError(
                f"{self._path}: no key in it; make one with python tools/gateway.py new-key NAME --keys {self._path}"
            )
        self._keys, self._stamp, self.error = keys, stamp, ""
