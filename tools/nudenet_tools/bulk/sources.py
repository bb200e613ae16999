"""Where a bulk run's pictures are: listings of folders, globs, object stores and files, and the bytes behind a name."""

from __future__ import annotations

import glob
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet
from pyarrow import fs

import nudenet_client
from nudenet_tools.pictures.files import SUFFIXES

LARGEST = 20_000_000  # bytes; the server refuses larger files, so no more is read
HTTP_SECONDS = 30.0


class SourceError(ValueError):
    """A listing that does not exist or names nothing; the message says what is accepted."""


def listing(source: str, column: str = "source") -> Iterator[str]:
    """Names of pictures, as `read` takes them, in a stable order.

    Args:
        source: a folder or object store prefix (``s3://``, ``gs://``), searched below for picture files; a glob;
            a ``.parquet`` file with a column of names; a ``.txt`` file with a name a line.
        column: of the Parquet file.

    Raises:
        SourceError: nothing there, or no such column.
    """
    if source.endswith((".parquet", ".txt")):
        store, path = filesystem(source)
        try:
            with store.open_input_file(path) as file:
                names = _parquet_names(file, column, source) if source.endswith(".parquet") else _lines(file.read())
        except FileNotFoundError:
            raise SourceError(f"there is no listing {source}") from None
        yield from names
    elif glob.has_magic(source) and "://" not in source:
        yield from sorted(name for name in glob.iglob(source, recursive=True) if Path(name).is_file())  # noqa: PTH207 (a pattern may be absolute)
    else:
        yield from _below(source)


def _parquet_names(file: pyarrow.NativeFile, column: str, source: str) -> list[str]:
    try:
        return pyarrow.parquet.read_table(file, columns=[column])[column].to_pylist()
    except (KeyError, pyarrow.ArrowInvalid) as error:
        raise SourceError(f"{source} has no column {column!r}; name it with --column") from error


def _lines(data: bytes) -> list[str]:
    return [line for line in data.decode().splitlines() if line.strip()]


def filesystem(name: str) -> tuple[fs.FileSystem, str]:
    """The file system of a path or address, and the path in it."""
    if "://" in name:
        return fs.FileSystem.from_uri(name)
    return fs.LocalFileSystem(), str(Path(name).resolve())


def _below(source: str) -> Iterator[str]:
    store, path = filesystem(source)
    if store.get_file_info(path).type != fs.FileType.Directory:
        raise SourceError(f"{source} is no folder, no .parquet and no .txt listing; a glob needs quotes")
    scheme = source.split("://", 1)[0] + "://" if "://" in source else ""
    files = store.get_file_info(fs.FileSelector(path, recursive=True))
    names = sorted(f.path for f in files if f.type == fs.FileType.File and Path(f.path).suffix.lower() in SUFFIXES)
    yield from (f"{scheme}{name}" for name in names)


def read(name: str) -> bytes:
    """A picture file's bytes; what is another picture format than JPEG comes encoded as JPEG.

    Args:
        name: a path, or an ``http://``, ``https://``, ``s3://``, ``gs://`` or ``file://`` address.

    Raises:
        nudenet_client.PictureError: it cannot be read or decoded; says why.
    """
    try:
        if name.startswith(("http://", "https://")):
            with urllib.request.urlopen(name, timeout=HTTP_SECONDS) as response:
                data = response.read(LARGEST + 1)
        else:
            store, path = filesystem(name)
            with store.open_input_stream(path) as file:
                data = file.read(LARGEST + 1)
    except urllib.error.HTTPError as error:
        raise nudenet_client.PictureError(f"cannot be read: HTTP status {error.code}") from error
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise nudenet_client.PictureError(f"cannot be read: {reason}") from error
    return nudenet_client.file_to_jpeg(data)
