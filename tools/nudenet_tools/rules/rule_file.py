"""The rule file: TOML, read strictly. A mistake names the rule, the key, what came and what is allowed."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["VERDICTS", "Level", "Rule", "RuleFile", "RuleFileError", "parse", "read"]

VERDICTS = ("review", "block")  # in order of severity; a rule for `review` counts `block`, too
_MOST_FRAMES = 10_000  # in a window: it is held in memory
_LONGEST_WINDOW = 600.0  # seconds: the same
_LONGEST = 7 * 86_400.0  # seconds
_FILE_KEYS = ("lost_after", "policy", "rule")
_RULE_KEYS = (
    "name",
    "classes",
    "verdict",
    "min_confidence",
    "hits",
    "frames",
    "seconds",
    "end_after",
    "cooldown",
    "update_every",
    "escalation",
)


class RuleFileError(ValueError):
    """The rule file cannot be used; the message says where and why."""


@dataclass(frozen=True)
class Level:
    """An event that has been open for `after` seconds has the level `level`."""

    after: float
    level: str


@dataclass(frozen=True)
class Rule:
    """When an event starts and ends. All times are seconds of the stream.

    Attributes:
        name: unique in its file.
        classes: a frame is a hit where one of these labels is found; empty for a rule over verdicts.
        verdict: a frame is a hit where the policy's verdict is at least this; empty for a rule over classes.
        min_confidence: of a detection that counts; 0 counts all that the server returns.
        hits: an event starts with so many hits in the window.
        frames: the window as a number of served frames; 0 where it is in seconds.
        seconds: the window in seconds; 0 where it is in frames.
        end_after: an event ends after so many quiet seconds.
        cooldown: no event starts for so many seconds after one has ended.
        update_every: seconds between updates of an open event; 0 for none besides escalation.
        escalation: levels in order of `after`.
        lost_after: without frames for so many seconds the stream is lost.
        policy: the policy that the verdicts come from.
    """

    name: str
    classes: tuple[str, ...] = ()
    verdict: str = ""
    min_confidence: float = 0.0
    hits: int = 1
    frames: int = 1
    seconds: float = 0.0
    end_after: float = 2.0
    cooldown: float = 0.0
    update_every: float = 0.0
    escalation: tuple[Level, ...] = ()
    lost_after: float = 10.0
    policy: str = ""

    @property
    def sha256(self) -> str:
        """SHA-256 of the rule as JSON with sorted keys and no spaces, defaults, `lost_after` and `policy` included."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class RuleFile:
    """All rules of a file. `policy` is empty where no rule needs verdicts."""

    rules: tuple[Rule, ...]
    policy: str = ""

    @property
    def classes(self) -> set[str]:
        """Labels that any rule looks for."""
        return {label for rule in self.rules for label in rule.classes}


def read(path: Path, labels: Collection[str]) -> RuleFile:
    """Read a rule file.

    Args:
        labels: the class names that the network knows.

    Raises:
        RuleFileError: it cannot be read, or something in it is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RuleFileError(f"{path}: {error}") from error
    try:
        return parse(text, labels)
    except RuleFileError as error:
        raise RuleFileError(f"{path}: {error}") from error


def parse(text: str, labels: Collection[str]) -> RuleFile:
    """`read` for the file's text.

    Raises:
        RuleFileError: something in it is wrong.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RuleFileError(f"not TOML: {error}") from error
    except RecursionError as error:
        raise RuleFileError("nested too deeply; expected [[rule]] tables of plain values") from error
    _known(table, _FILE_KEYS, "the file")
    lost_after = _seconds(table, "lost_after", "the file", 10.0, above=0.0)
    policy = _text(table, "policy", "the file")
    entries = table.get("rule")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise RuleFileError("it must have at least one [[rule]]")
    rules = tuple(_rule(entry, number, labels, lost_after, policy) for number, entry in enumerate(entries, 1))
    names = [rule.name for rule in rules]
    for name in names:
        if names.count(name) > 1:
            raise RuleFileError(f"rule {name!r}: two rules have this name; each needs its own")
    if policy and not any(rule.verdict for rule in rules):
        raise RuleFileError(f"policy is {policy!r}, but no rule has a verdict; remove it, or add a rule with one")
    return RuleFile(rules, policy)


def _rule(table: Mapping[str, Any], number: int, labels: Collection[str], lost_after: float, policy: str) -> Rule:
    name = _text(table, "name", f"rule {number}")
    if not name:
        raise RuleFileError(f"rule {number}: name is missing")
    where = f"rule {name!r}"
    _known(table, _RULE_KEYS, where)
    classes = _classes(table, where, labels)
    verdict = _text(table, "verdict", where)
    if bool(classes) == bool(verdict):
        raise RuleFileError(f"{where}: give either classes or verdict")
    if verdict and verdict not in VERDICTS:
        raise RuleFileError(f"{where}: verdict must be one of {', '.join(VERDICTS)}, got {verdict!r}")
    if verdict and not policy:
        raise RuleFileError(f'{where}: a verdict needs a policy; add a line such as policy = "standard" at the top')
    if verdict and "min_confidence" in table:
        raise RuleFileError(f"{where}: min_confidence is for classes; the thresholds of a verdict are the policy's")
    if ("frames" in table) == ("seconds" in table):
        raise RuleFileError(f"{where}: give the window either as frames or as seconds")
    hits = _count(table, "hits", where, 1)
    frames = _count(table, "frames", where, 0)
    if frames and hits > frames:
        raise RuleFileError(f"{where}: hits is {hits}, more than the window's {frames} frames")
    return Rule(
        name=name,
        classes=classes,
        verdict=verdict,
        min_confidence=_number(table, "min_confidence", where, 0.0, 0.0, 1.0),
        hits=hits,
        frames=frames,
        seconds=0.0 if frames else _seconds(table, "seconds", where, 0.0, above=0.0, most=_LONGEST_WINDOW),
        end_after=_seconds(table, "end_after", where, 2.0),
        cooldown=_seconds(table, "cooldown", where, 0.0),
        update_every=_seconds(table, "update_every", where, 0.0),
        escalation=_escalation(table, where),
        lost_after=lost_after,
        policy=policy if verdict else "",
    )


def _classes(table: Mapping[str, Any], where: str, labels: Collection[str]) -> tuple[str, ...]:
    if "classes" not in table:
        return ()
    value = table["classes"]
    if not isinstance(value, list) or not value:
        raise RuleFileError(f"{where}: classes must be a list of class names, got {value!r}")
    for label in value:
        if label not in labels:
            raise RuleFileError(f"{where}: classes has {label!r}; there are: {', '.join(labels)}")
    if len(set(value)) < len(value):
        raise RuleFileError(f"{where}: classes names a class twice")
    return tuple(value)


def _escalation(table: Mapping[str, Any], where: str) -> tuple[Level, ...]:
    value = table.get("escalation", [])
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise RuleFileError(f"{where}: escalation must be a list of tables with after and level, got {value!r}")
    levels = []
    for number, entry in enumerate(value, 1):
        inner = f"{where}, escalation {number}"
        _known(entry, ("after", "level"), inner)
        if "after" not in entry or not _text(entry, "level", inner):
            raise RuleFileError(f"{inner}: it must have both after and level")
        levels.append(Level(_seconds(entry, "after", inner, 0.0, above=0.0), entry["level"]))
    if any(second.after <= first.after for first, second in itertools.pairwise(levels)):
        raise RuleFileError(f"{where}: each escalation must have a larger after than the one before")
    return tuple(levels)


def _known(table: Mapping[str, Any], keys: Collection[str], where: str) -> None:
    for key in table:
        if key not in keys:
            raise RuleFileError(f"{where}: there is no key {key!r}; there are: {', '.join(keys)}")


def _text(table: Mapping[str, Any], key: str, where: str) -> str:
    """A name: a non-empty line; empty where the key is absent."""
    if key not in table:
        return ""
    value = table[key]
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or len(value) > 100:
        raise RuleFileError(f"{where}: {key} must be a text of 1 to 100 printable characters, got {value!r}")
    return value


def _count(table: Mapping[str, Any], key: str, where: str, default: int) -> int:
    if key not in table:
        return default
    value = table[key]
    if type(value) is not int or not 1 <= value <= _MOST_FRAMES:
        raise RuleFileError(f"{where}: {key} must be a whole number from 1 to {_MOST_FRAMES}, got {value!r}")
    return value


def _number(table: Mapping[str, Any], key: str, where: str, default: float, low: float, high: float) -> float:
    value = table.get(key, default)
    if type(value) not in (int, float) or not math.isfinite(value) or not low <= value <= high:
        raise RuleFileError(f"{where}: {key} must be a number from {low:g} to {high:g}, got {value!r}")
    return float(value)


def _seconds(
    table: Mapping[str, Any],
    key: str,
    where: str,
    default: float,
    above: float | None = None,
    most: float = _LONGEST,
) -> float:
    value = _number(table, key, where, default, 0.0, most)
    if above is not None and value <= above:
        raise RuleFileError(f"{where}: {key} must be above {above:g} seconds, got {value:g}")
    return value
