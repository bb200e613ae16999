"""Addresses of cameras: what of them may be shown, and what FFmpeg gets."""

from __future__ import annotations

import ipaddress
import re
import urllib.parse

from nudenet_client import endpoint

# Parameters that tell the streams of one camera apart. All others may be credentials and are not shown.
_HARMLESS = frozenset(
    {"ch", "chn", "channel", "channelid", "channels", "cam", "camera", "codec", "fps", "height", "input", "profile"}
    | {
        "quality",
        "res",
        "resolution",
        "stream",
        "streamid",
        "streamtype",
        "subtype",
        "track",
        "transport",
        "transportmode",
    }
    | {"type", "unicast", "video", "width"}
)
_HARMLESS_VALUE = re.compile(r"[\w.-]{1,16}", re.ASCII)
_HOST = re.compile(r"(\[[0-9a-fA-F:.%]+\]|[\w.-]+)(:\d*)?")
_SEPARATORS = "/?#"


def is_address(name: str) -> bool:
    """Whether a source is an address rather than a path."""
    return "://" in name


def label(address: str) -> str:
    """The address without anything that may be a user or a password: for people, logs, files and names of files.

    Cameras carry them before the host, in the query and in the path. In doubt more is left out.
    """
    scheme, _, rest = address.partition("://")
    rest = rest[_credentials(rest) :]
    place = _until(rest, _SEPARATORS)
    shown = place if _HOST.fullmatch(place) else "..."
    path = _until(rest[len(place) :], "?#")
    shown += "/".join(_segment(segment) for segment in path.split("/"))
    query = _until(rest[len(place) + len(path) + 1 :], "#") if rest[len(place) + len(path) :].startswith("?") else ""
    harmless = _harmless(query)
    return f"{scheme}://{shown}" + (f"?{harmless}" if harmless else "")


def for_ffmpeg(address: str) -> str:
    """The address with user and password encoded where FFmpeg would take a part of them for the path."""
    scheme, _, rest = address.partition("://")
    end = _credentials(rest)
    if not end or "@" in _until(rest, _SEPARATORS):
        return address
    user, colon, password = rest[: end - 1].partition(":")
    quoted = urllib.parse.quote(user, safe="%") + colon + urllib.parse.quote(password, safe="%")
    return f"{scheme}://{quoted}@{rest[end:]}"


def is_loopback(address: str) -> bool:
    """Whether the address is one of this machine, which no proxy can reach better."""
    rest = address.partition("://")[2]
    found = _HOST.match(rest, _credentials(rest))
    return found is not None and endpoint.is_loopback(found[1].strip("[]"))


def hide(text: str, address: str) -> str:
    """`text`, say an error of FFmpeg, with `label` in place of the address."""
    if not is_address(address):
        return text
    for form in {address, for_ffmpeg(address)}:
        text = text.replace(form, label(address))
    return text


def _until(text: str, signs: str) -> str:
    return re.split(f"[{re.escape(signs)}]", text, maxsplit=1)[0]


def _credentials(rest: str) -> int:
    """Where the host begins in what follows ``scheme://``: behind the credentials, which may hold any sign."""
    authority, before_query = _until(rest, _SEPARATORS), _until(rest, "?#")
    at = before_query.rfind("@")
    if "@" in authority or (at >= 0 and _may_be_credentials(authority)):
        return at + 1
    if at < 0 and "@" in rest:  # in the query, or the password holds a question mark
        directly = authority == before_query and _may_be_credentials(authority)
        if directly or not _HOST.fullmatch(authority):
            return rest.rfind("@") + 1
    return 0


def _may_be_credentials(authority: str) -> bool:
    """Whether ``name:something`` can be a user and the begin of a password."""
    host, colon, _ = authority.rpartition(":")
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return bool(colon)
    return False


def _harmless(parameters: str) -> str:
    kept = []
    for parameter in re.split("[&;]", parameters):
        key, _, value = parameter.partition("=")
        if key.lower() in _HARMLESS and _HARMLESS_VALUE.fullmatch(value):
            kept.append(parameter)
    return "&".join(kept)


def _segment(segment: str) -> str:
    plain = urllib.parse.unquote(segment)
    return _harmless(segment) if any(sign in plain for sign in "=&;:@") else segment
