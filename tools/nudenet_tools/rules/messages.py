"""Events as CloudEvents 1.0 in JSON."""

from __future__ import annotations

import base64
import datetime
import json
import urllib.parse
from dataclasses import dataclass
from typing import Any

from nudenet_tools.webhooks.outbox import Message

from .machine import Event
from .rule_file import Rule

TYPE = "nudenet.event"


@dataclass(frozen=True)
class RuleName:
    """What a message says of its rule."""

    name: str
    sha256: str

    @classmethod
    def of(cls, rule: Rule) -> RuleName:
        return cls(rule.name, rule.sha256)


def message(event: Event, stream: str, rule: RuleName, picture: bytes | None = None) -> Message:
    """The message that tells `event`.

    Args:
        stream: its label, without credentials.
        picture: censored JPEG of the best frame.
    """
    name = f"{event.open.id}.{event.sequence}"
    best = event.open.best
    data: dict[str, Any] = {
        "event": event.open.id,
        "sequence": event.sequence,
        "stream": stream,
        "rule": {"name": rule.name, "sha256": rule.sha256},
        "level": event.open.level,
        "started": _iso(event.open.started),
        "last_hit": _iso(event.open.last_hit),
        "hits": event.open.hits,
        "best": {
            "frame": best.frame,
            "at": _iso(best.time),
            "class": best.match.label,
            "confidence": best.match.confidence,
            "box": list(best.match.box),
        },
    }
    if best.match.policy_sha256:
        data["best"] |= {"policy_sha256": best.match.policy_sha256, "network_sha256": best.match.network_sha256}
    if event.kind == "end":
        data |= {"ended": _iso(event.time), "reason": event.reason}
    if picture is not None:
        data["picture"] = {"content_type": "image/jpeg", "base64": base64.b64encode(picture).decode()}
    envelope = {
        "specversion": "1.0",
        "id": name,
        "source": "/streams/" + urllib.parse.quote(stream, safe=""),
        "type": f"{TYPE}.{event.kind}",
        "subject": rule.name,
        "time": _iso(event.time),
        "datacontenttype": "application/json",
        "data": data,
    }
    # Escapes, so that a stream's name in another encoding travels, too.
    return Message(name, event.kind, json.dumps(envelope).encode())


def _iso(seconds: float) -> str:
    at = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
