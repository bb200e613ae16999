"""Where a bulk run's pictures are: listings of folders, globs, object stores and files, and the bytes behind a name."""

from __future__ import annotations

import base64
import codecs
import glob
import http.client
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
from pyarrow import fs

import nudenet_client
from nudenet_client import endpoint
from nudenet_steps.suffixes import PICTURE_SUFFIXES
from nudenet_tools.pictures import folders, names

LARGEST = 20_000_000  # bytes; the server refuses larger files, so no more is read
HTTP_SECONDS = 30.0


class SourceError(ValueError):
    """A listing that does not exist or names nothing; the message says what is accepted."""


def listing(source: str, column: str = "source", note: Callable[[str], None] = lambda text: None) -> Iterator[str]:
    """Names of pictures, as `read` takes them, in a stable order; all of them are plain text, see `names.as_text`.

    Args:
        source: a folder or object store prefix (``s3://``, ``gs://``), searched below for picture files; a glob;
            a ``.parquet`` file with a column of names; a ``.txt`` file with a name a line.
        column: of the Parquet file.
        note: called with a line about what a folder has besides pictures.

    Raises:
        SourceError: nothing there, or no such column.
        OSError: a folder cannot be read.
    """
    source = names.as_path(source)
    if source.endswith((".parquet", ".txt")) and ("://" in source or not Path(source).is_dir()):
        found = _listed(source, column)
    elif "://" in source:
        found = _below_prefix(source)
    elif Path(source).is_dir():  # also where its name looks like a glob
        below = folders.search(Path(source).resolve())
        if left_out := below.left_out(videos=True):
            note(f"{names.as_text(source)}: {left_out}")
        found = [str(path) for path in below.pictures]
    elif Path(source).is_file():
        found = [source]
    elif glob.has_magic(source):
        found = sorted(name for name in glob.iglob(source, recursive=True) if Path(name).is_file())  # noqa: PTH207 (a pattern may be absolute)
    else:
        raise SourceError(f"{names.as_text(source)} is no folder, no .parquet and no .txt listing; a glob needs quotes")
    if not found:
        raise SourceError(f"{names.as_text(source)}: no pictures there")
    yield from map(names.as_text, found)


def _listed(source: str, column: str) -> list[str]:
    store, path = filesystem(source)
    try:
        with store.open_input_file(path) as file:
            if source.endswith(".parquet"):
                return _parquet_names(file, column, source)
            return _lines(file.read(), source)
    except FileNotFoundError:
        raise SourceError(f"there is no listing {source}") from None


def _parquet_names(file: pyarrow.NativeFile, column: str, source: str) -> list[str]:
    try:
        table = pyarrow.parquet.ParquetFile(file)
        if column not in (columns := table.schema_arrow.names):
            raise SourceError(f"{source} has no column {column!r}, but {columns}; name it with --column")
        values = table.read([column])[column]
    except pyarrow.ArrowException as error:
        raise SourceError(f"{source} is damaged, or no Parquet file: {error}") from error
    if not (pyarrow.types.is_string(values.type) or pyarrow.types.is_large_string(values.type)):
        raise SourceError(f"{source}: column {column!r} must hold names as text, it holds {values.type}")
    return [name for name in values.to_pylist() if name]


def _lines(data: bytes, source: str) -> list[str]:
    """The lines of a listing: UTF-8, UTF-16 and UTF-32 with their marks, or file names as the disk has them."""
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):  # the former begins as UTF-16's
        data = data.decode("utf-32", "replace").encode()
    elif data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        data = data.decode("utf-16", "replace").encode()
    if b"\0" in data:
        raise SourceError(f"{source} holds zero bytes, as UTF-16 without its mark does: save it as UTF-8")
    if b"\n" not in data:  # an old Mac's line ends, else a sign that names may hold
        data = data.replace(b"\r", b"\n")
    lines = [line.removesuffix(b"\r") for line in data.removeprefix(codecs.BOM_UTF8).split(b"\n")]
    return [_line(line) for line in lines if line.strip()]


def _line(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        name = os.fsdecode(line)
    latin = line.decode("cp1252", "replace")  # written on Windows, say; the files were copied properly
    return latin if not os.path.exists(name) and os.path.exists(latin) else name  # noqa: PTH110 (any text)


def filesystem(name: str) -> tuple[fs.FileSystem, str]:
    """The file system of a path or address, and the path in it.

    Raises:
        SourceError: a name that Arrow cannot take.
    """
    if "://" in name and not name.startswith("file://"):
        return fs.FileSystem.from_uri(name)
    path = str(Path(names.as_path(name)).resolve())
    try:
        path.encode()
    except UnicodeEncodeError:
        raise SourceError(
            f"{names.as_text(path)}: listings and output need a name in UTF-8; link to it by one"
        ) from None
    return fs.LocalFileSystem(), path


def _below_prefix(source: str) -> list[str]:
    store, path = filesystem(source)
    if store.get_file_info(path).type != fs.FileType.Directory:
        raise SourceError(f"{source} is no folder, no .parquet and no .txt listing")
    scheme = source.split("://", 1)[0] + "://"
    files = (f.path for f in store.get_file_info(fs.FileSelector(path, recursive=True)) if f.type == fs.FileType.File)
    return [f"{scheme}{name}" for name in sorted(files) if Path(name).suffix.lower() in PICTURE_SUFFIXES]


def _open(address: str) -> Any:
    """The response of a web server: user and password of the address go in a header, other letters are encoded.

    The environment's proxies hold, but none before this machine's own servers.
    """
    parts = urllib.parse.urlsplit(address)
    credentials, _, place = parts.netloc.rpartition("@")
    path, query = (urllib.parse.quote(text, safe="/%:=&?~#+!$,;'@()*[]") for text in (parts.path, parts.query))
    request = urllib.request.Request(urllib.parse.urlunsplit((parts.scheme, place, path, query, "")))
    if credentials:
        plain = urllib.parse.unquote(credentials).encode()
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(plain).decode()}")
    proxies: dict[str, str] | None = {} if endpoint.is_loopback(parts.hostname or "") else None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    return opener.open(request, timeout=HTTP_SECONDS)


def read(name: str) -> bytes:
    """A picture file's bytes; what is another picture format than JPEG comes encoded as JPEG.

    Args:
        name: a path, or an ``http://``, ``https://``, ``s3://``, ``gs://`` or ``file://`` address.

    Raises:
        nudenet_client.PictureError: it cannot be read or decoded; says why.
    """
    try:
        if name.lower().startswith(("http://", "https://")):
            with _open(name) as response:
                data = response.read(LARGEST + 1)
        elif "://" in name and not name.startswith("file://"):
            store, path = filesystem(name)
            with store.open_input_stream(path) as file:
                data = file.read(LARGEST + 1)
        else:
            with Path(names.as_path(name)).open("rb") as file:
                data = file.read(LARGEST + 1)
    except urllib.error.HTTPError as error:
        raise nudenet_client.PictureError(f"cannot be read: HTTP status {error.code}") from error
    except http.client.InvalidURL as error:  # whose text may hold a part of a password
        raise nudenet_client.PictureError("cannot be read: its address is not valid") from error
    except (OSError, ValueError, http.client.HTTPException, pyarrow.ArrowException) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise nudenet_client.PictureError(f"cannot be read: {reason}") from error
    return nudenet_client.file_to_jpeg(data)
