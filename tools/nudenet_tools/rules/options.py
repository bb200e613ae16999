"""Command line options of rules, and the session that they describe."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from nudenet_tools import ROOT
from nudenet_tools.pictures import drawing
from nudenet_tools.webhooks import signing
from nudenet_tools.webhooks.delivery import JsonLines, Target
from nudenet_tools.webhooks.outbox import MAX_AGE, MAX_BYTES, Outbox

from .evidence import Evidence
from .rule_file import RuleFile
from .session import Session

Rules: TypeAlias = Annotated[Path | None, typer.Option(help="Rule file (TOML): when an event starts and ends.")]
RuleEvents: TypeAlias = Annotated[Path | None, typer.Option(help="Append events to this file; - is stdout.")]
WebhookUrl: TypeAlias = Annotated[str, typer.Option("--webhook", help="https:// address that events are sent to.")]
SecretFile: TypeAlias = Annotated[
    Path | None, typer.Option("--webhook-secret-file", help=f"Its secret; default: the variable {signing.VARIABLE}.")
]
WebhookCa: TypeAlias = Annotated[Path | None, typer.Option(help="PEM file of the certificates it is trusted by.")]
AllowHttp: TypeAlias = Annotated[bool, typer.Option("--webhook-allow-http", help="Also without encryption.")]
AllowPrivate: TypeAlias = Annotated[
    bool, typer.Option("--webhook-allow-private", help="Also this machine and private networks.")
]
OutboxFile: TypeAlias = Annotated[
    Path, typer.Option("--outbox", help="Open events and messages to be delivered; one for each running command.")
]
OutboxMegabytes: TypeAlias = Annotated[float, typer.Option(min=1, help="Most that waits; the oldest updates go first.")]
OutboxHours: TypeAlias = Annotated[float, typer.Option(min=0.01, help="How long a message waits at most.")]
WithEvidence: TypeAlias = Annotated[
    bool, typer.Option("--evidence", help="Events carry a censored picture of their best frame.")
]

DEFAULT_OUTBOX = ROOT / "out" / "events.sqlite"
DEFAULT_MEGABYTES, DEFAULT_HOURS = MAX_BYTES / 2**20, MAX_AGE / 3600


@dataclass(frozen=True)
class Delivering:
    """Where events go: the options above. Without a webhook and a file they go to stdout."""

    events: Path | None
    webhook: str
    secret_file: Path | None
    ca: Path | None
    allow_http: bool
    allow_private: bool
    outbox: Path
    megabytes: float
    hours: float

    def open(
        self,
        stack: ExitStack,
        rules: RuleFile,
        evidence: tuple[Collection[str], drawing.Style] | None,
        note: Callable[[str], None],
    ) -> Session:
        """The session, closed by `stack`.

        Args:
            evidence: labels to hide in pictures, and how; None: no pictures.

        Raises:
            SecretError, TargetError, OutboxError, OSError: something cannot be used.
        """
        targets: dict[str, Target] = {}
        if self.webhook:
            from nudenet_tools.webhooks.http import Webhook

            signer = signing.signer(self.secret_file)
            targets["webhook"] = Webhook(
                self.webhook, signer, allow_http=self.allow_http, allow_private=self.allow_private, ca=self.ca
            )
        if self.events is not None and str(self.events) != "-":
            targets["file"] = JsonLines(stack.enter_context(self.events.open("a", encoding="utf-8")))
        elif self.events is not None or not self.webhook:
            if isinstance(sys.stdout, io.TextIOWrapper):
                sys.stdout.reconfigure(encoding="utf-8")
            targets["file"] = JsonLines(sys.stdout)
        outbox = Outbox(self.outbox, int(self.megabytes * 2**20), self.hours * 3600)
        return stack.enter_context(Session(rules, outbox, targets, Evidence(*evidence) if evidence else None, note))
