"""Addresses of cameras: what of them may be shown, and what FFmpeg gets."""

from __future__ import annotations

import ipaddress
import itertools
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
# What is called so, or stands behind it in a path, is not shown.
_SECRETS = frozenset(
    {"token", "key", "apikey", "streamkey", "auth", "pass", "passwd", "password", "pwd", "secret", "session", "sid"}
    | {"sig", "signature"}
)
_CODEC = re.compile(r"(?:h\.?26[345]|mpe?g?4|mjpe?g)", re.IGNORECASE)
_NUMBERED = re.compile(r"[a-z]+\d{1,4}|[A-Z][a-z]*\d{1,4}|\d{1,4}[a-z]+")
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
    shown += "/".join(_segment(segment, before) for before, segment in itertools.pairwise(["", *path.split("/")]))
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


def _segment(segment: str, before: str) -> str:
    """What may be shown of a part of the path; `before` is the part in front of it."""
    plain = segment
    while (unquoted := urllib.parse.unquote(plain)) != plain:
        plain = unquoted
    if any(sign in plain for sign in "=&;:@?"):
        return _harmless(segment)
    words = re.split(r"[\W_]+", plain)
    is_secret = before.lower() in _SECRETS or any(_is_random(word) or word.lower() in _SECRETS for word in words)
    return "" if is_secret else segment


def _is_random(word: str) -> bool:
    """Whether it looks made up by a program, as keys and tokens do, and not named by a person, as camera12 is."""
    word = _CODEC.sub("", word)
    mixed = re.search(r"[a-zA-Z]", word) and re.search(r"\d", word) and not _NUMBERED.fullmatch(word)
    is_camel = len(re.findall(r"[a-z][A-Z]", word)) >= 3
    return len(word) >= 20 or (len(word) >= 8 and bool(mixed or is_camel))
