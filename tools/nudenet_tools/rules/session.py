"""The rules of one run: what they ask of the server, watchers of its streams, the outbox, and the deliveries."""

from __future__ import annotations

import dataclasses
import json
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence

from nudenet_client import Parameters
from nudenet_tools.streams.runner import Stream
from nudenet_tools.webhooks.delivery import Delivery, Target
from nudenet_tools.webhooks.outbox import Outbox, OutboxError

from .evidence import Evidence
from .machine import CHANGED, REMOVED, Machine
from .messages import RuleName, message
from .rule_file import Rule, RuleFile, RuleFileError
from .watcher import Watcher, state_key

_DEFAULT_THRESHOLD = 0.25  # of requests that name none
_LAST_DELIVERIES = 5.0  # seconds at the end; what is left comes with the next start


def request(rules: RuleFile, parameters: Parameters, hidden: Collection[str] = ()) -> Parameters:
    """`parameters`, widened to what the rules need to see.

    Args:
        hidden: labels that evidence needs, too.

    Raises:
        RuleFileError: the rules and the parameters cannot both have their way.
    """
    if rules.policy and parameters.policy not in (None, rules.policy):
        raise RuleFileError(f"the rule file's policy is {rules.policy!r}, --policy is {parameters.policy!r}")
    threshold = _DEFAULT_THRESHOLD if parameters.confidence_threshold is None else parameters.confidence_threshold
    for rule in rules.rules:
        if 0 < rule.min_confidence < threshold:
            raise RuleFileError(
                f"rule {rule.name!r}: min_confidence is {rule.min_confidence:g}, but the request's threshold is "
                f"{threshold:g}; pass --confidence-threshold {rule.min_confidence:g}"
            )
    classes = parameters.classes
    if classes is not None:
        classes = sorted({*(classes.split(",") if isinstance(classes, str) else classes), *rules.classes, *hidden})
    return dataclasses.replace(parameters, policy=parameters.policy or rules.policy or None, classes=classes)


class Session:
    """Use as a context manager around the run.

    Args:
        targets: who gets the messages, by name.
        note: called with a line for people.
    """

    def __init__(
        self,
        rules: RuleFile,
        outbox: Outbox,
        targets: Mapping[str, Target],
        evidence: Evidence | None,
        note: Callable[[str], None],
    ) -> None:
        self._rules, self._outbox, self._evidence, self._note = rules, outbox, evidence, note
        self._deliveries = [Delivery(outbox, name, target, note) for name, target in targets.items()]
        self._names = list(targets)
        self._watchers: list[Watcher] = []

    def watch(self, streams: Mapping[str, str]) -> list[Watcher]:
        """A consumer for each stream: key, the same after a restart -> label.

        An event that is open in the outbox ends here where its stream or its rule, as it was, is not there any more.

        Raises:
            OutboxError: the outbox cannot be written.
        """
        states = self._outbox.states()
        current = {state_key(key, rule.name): rule.sha256 for key in streams for rule in self._rules.rules}
        for key, saved in states.items():
            if current.get(key) == saved["rule"]["sha256"]:
                continue
            rule = RuleName(**saved["rule"])
            machine = Machine(Rule(rule.name), lambda: uuid.uuid4().hex, saved["machine"])
            stream = json.loads(key)[0]
            ended = machine.end(max(time.time(), machine.last or 0.0), CHANGED if stream in streams else REMOVED)
            saved["machine"] = machine.to_dict()
            self._outbox.record([message(one, saved["label"], rule) for one in ended], self._names, {key: saved})
            self._outbox.forget([key])
        self._watchers = [
            Watcher(key, label, self._rules.rules, self._outbox, self._names, states, self._evidence, stored=self._wake)
            for key, label in streams.items()
        ]
        return self._watchers

    def look(self, streams: Sequence[Stream], stopped: bool) -> None:
        """Look for lost and ended streams; `streams` in the order of `watch`. Call it a few times a second.

        Args:
            stopped: the run ends before its streams: open events stay open.
        """
        for watcher, stream in zip(self._watchers, streams, strict=True):
            try:
                if stopped and not stream.error:
                    watcher.save()
                elif stream.running:
                    watcher.tick()
                else:
                    watcher.finish(bool(stream.error))
            except OutboxError as error:
                self._note(str(error))

    def __enter__(self) -> Session:
        for delivery in self._deliveries:
            delivery.start()
        return self

    def __exit__(self, *_: object) -> None:
        end = time.monotonic() + _LAST_DELIVERIES
        for delivery in self._deliveries:
            delivery.finish(max(0.0, end - time.monotonic()))
        if waiting := self._outbox.waiting():
            self._note(f"{self._outbox.path}: {waiting} messages wait for the next start")
        if dropped := self._outbox.dropped():
            counts = ", ".join(f"{count} {kind}" for kind, count in sorted(dropped.items()))
            self._note(f"{self._outbox.path}: dropped since it was made, for size or age: {counts}")
        self._outbox.close()

    def _wake(self) -> None:
        for delivery in self._deliveries:
            delivery.wake()
