"""What several policies say of one picture, side by side, as HTML."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape

from container.repository import MODEL_REPOSITORY
from nudenet_client import Detections


def policy_names() -> list[str]:
    """Of the policies in this model repository, in the file's order."""
    path = MODEL_REPOSITORY / "nudenet_postprocess" / "policies.json"
    return list(json.loads(path.read_text(encoding="utf-8"))["policies"])


def html(judged: Mapping[str, Detections]) -> str:
    """One column a policy: its verdict, and what led to it."""
    columns = "".join(_column(name, found) for name, found in judged.items())
    return f'<div class="verdicts">{columns}</div>' if columns else ""


def _column(name: str, found: Detections) -> str:
    findings = "".join(
        f"<li>{escape(finding['class'])} {finding['confidence']:.2f}, {escape(finding['verdict'])} from "
        f"{finding['threshold']:g}, {finding['area']:.1%} of the picture</li>"
        for finding in found.reasons.get("findings", ())
    )
    verdict = escape(found.verdict)
    reasons = f"<ul>{findings}</ul>" if findings else "<p>nothing reached a threshold</p>"
    return f'<div data-policy="{escape(name)}">{escape(name)} <b class="verdict {verdict}">{verdict}</b>{reasons}</div>'
