"""A model's parameters, read strictly in one place: a wrong one stops the load instead of meaning something else."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


class ModelParameterError(ValueError):
    """A parameter in config.pbtxt; the message names it, what came and what is allowed."""


@dataclass(frozen=True)
class Parameter:
    """How one parameter is read.

    Args:
        parse: text to value; raises ValueError.
        allowed: what `parse` accepts, in words.
        default: text for a configuration without it; None: it must be there.
    """

    parse: Callable[[str], Any]
    allowed: str
    default: str | None = None


def whole(low: int, high: int, default: str | None = None) -> Parameter:
    """A whole number in [low,high]."""

    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise ValueError
        return int(text)

    return Parameter(parse, f"a whole number from {low} to {high}", default)


def choice(values: Mapping[str, Any], default: str | None = None) -> Parameter:
    """One of some words."""

    def parse(text: str) -> Any:
        if text not in values:
            raise ValueError
        return values[text]

    return Parameter(parse, " or ".join(values) if len(values) < 3 else "one of " + ", ".join(values), default)


def word(default: str | None = None) -> Parameter:
    """A word whose meaning somebody else checks."""

    def parse(text: str) -> str:
        if not text:
            raise ValueError
        return text

    return Parameter(parse, "not empty", default)


def _words(*values: str, default: str | None = None) -> Parameter:
    return choice({value: value for value in values}, default)


PREPROCESS = {
    "max_bytes": whole(1, 2**31 - 1),
    "max_pixels": whole(1, 2**32),
    "max_scans": whole(1, 10_000),
    "max_scan_work": whole(1, 2**40),
    "strict": choice({"true": True, "false": False}),
    "decoder": _words("cpu", "nvjpeg", default="cpu"),
    "max_in_flight": whole(1, 10_000),
}
POSTPROCESS = {
    "max_candidates": whole(1, 1_000_000),
}
TRT = {
    # The registry of engines knows them. A rehearsal serves the plan's configuration as it is, which names none.
    "engine": word(os.environ.get("NUDENET_STAND_IN")),
    "precision": word("auto"),  # each engine knows its own
    "threads": whole(0, 4096, default="0"),
}


def parse(config: Mapping[str, Any], known: Mapping[str, Parameter]) -> dict[str, Any]:
    """Values of a model's parameters.

    Args:
        config: the model's configuration, from JSON. Names in capitals are Triton's own and passed over.
        known: name -> how it is read.

    Raises:
        ModelParameterError: unknown, missing or out of range.
    """
    given = {name: entry["string_value"] for name, entry in config["parameters"].items() if not name.isupper()}
    where = config.get("name", "model")
    for name in given:
        if name not in known:
            raise ModelParameterError(f"{where}: unknown parameter {name!r}; known: {', '.join(known)}")
    values = {}
    for name, parameter in known.items():
        text = given.get(name, parameter.default)
        if text is None:
            raise ModelParameterError(f"{where}: parameter {name!r} is missing; it must be {parameter.allowed}")
        try:
            values[name] = parameter.parse(text)
        except ValueError:
            raise ModelParameterError(
                f"{where}: parameter {name!r} must be {parameter.allowed}, got {text!r}"
            ) from None
    return values
