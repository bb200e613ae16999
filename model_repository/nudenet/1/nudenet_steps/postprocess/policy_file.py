"""policies.json, read strictly when the model loads: a mistake in it stops the load and lets no picture pass."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as quoted
from typing import Any

from nudenet_steps.files import sha256

FILE = "policies.json"
DEFAULT = "default"  # as a request's policy: the one that the file names
FACES = ("FACE_FEMALE", "FACE_MALE")
NETWORK_SUFFIXES = (".plan", ".engine", ".onnx")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_LONGEST_WHY = 200


class PolicyFileError(ValueError):
    """A mistake in policies.json; the message names the key, what came and what is allowed."""


@dataclass(frozen=True)
class Rule:
    """Of one class.

    Attributes:
        review: least confidence for a person to look at it; None: never.
        block: least confidence to refuse the picture; None: never.
        least_area: candidates that cover a smaller share of the picture, in [0,1), do not count.
    """

    review: float | None
    block: float | None
    least_area: float = 0.0


@dataclass(frozen=True)
class Policy:
    """Rules by class name; a class without a rule is always allowed.

    Attributes:
        sha256: of the policy as canonical JSON, see `canonical`.
    """

    name: str
    version: int
    classes: Mapping[str, Rule]
    sha256: str


@dataclass(frozen=True)
class PolicyFile:
    """All policies, and which of them judges requests that name none; None: they are not judged."""

    policies: Mapping[str, Policy]
    default: str | None = None


def load(path: Path, labels: Sequence[str]) -> PolicyFile:
    """Read and check a policies.json.

    Raises:
        PolicyFileError: missing, not JSON, or wrong in content.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_no_constants)
    except OSError as error:
        raise PolicyFileError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise PolicyFileError(f"{path}: {error}") from error
    except RecursionError as error:
        raise PolicyFileError(f"{path}: nested too deeply; expected policies of classes of numbers") from error
    try:
        return parse(content, labels)
    except PolicyFileError as error:
        raise PolicyFileError(f"{path}: {error}") from None


def parse(content: object, labels: Sequence[str]) -> PolicyFile:
    """Check the content of a policies.json.

    Args:
        content: as JSON gives it: ``{"default": NAME or null, "policies": {NAME: POLICY, ...}}``.
        labels: the classes that there are.

    Raises:
        PolicyFileError: see there.
    """
    file = _object("the file", content, required=("policies",), optional=("default",))
    entries = _object("policies", file["policies"])
    if not entries:
        raise PolicyFileError("policies must hold at least one policy, got none")
    policies = {name: _policy(name, entry, labels) for name, entry in entries.items()}
    default = file.get("default")
    if default is not None and default not in policies:
        raise PolicyFileError(f"default must be null or one of {', '.join(policies)}, got {quoted(default)}")
    return PolicyFile(policies, default)


def canonical(policy: Mapping[str, Any]) -> bytes:
    """What a policy's hash is made of: JSON with sorted keys and without spaces, as UTF-8."""
    return json.dumps(policy, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def network_sha256(folder: Path) -> str:
    """Identity of the network files in `folder`, the version folder of nudenet_trt.

    The SHA-256 of what ``sha256sum`` prints for them in order of their names; any of them changed, it changes.
    Empty where there are none.
    """
    listing = b""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix in NETWORK_SUFFIXES:
            listing += f"{sha256(path)}  {path.name}\n".encode()
    return hashlib.sha256(listing).hexdigest() if listing else ""


def _policy(name: str, entry: object, labels: Sequence[str]) -> Policy:
    where = f"policies.{name}"
    if not _NAME.fullmatch(name) or name == DEFAULT:
        raise PolicyFileError(
            f"a policy's name has 1 to 32 of a-z, 0-9, _ and -, and is not {DEFAULT!r}, got {quoted(name)}"
        )
    policy = _object(where, entry, required=("version", "classes"), optional=("why",))
    version = policy["version"]
    if type(version) is not int or version < 1:
        raise PolicyFileError(f"{where}.version must be a whole number from 1, got {quoted(version)}")
    _why(f"{where}.why", policy.get("why", ""))
    classes = _object(f"{where}.classes", policy["classes"])
    if not classes:  # it would allow everything, and nobody asks for that
        raise PolicyFileError(f"{where}.classes must have at least one class, got none")
    unknown = [label for label in classes if label not in labels]
    if unknown:
        raise PolicyFileError(f"{where}.classes: unknown class {quoted(unknown[0])}; known: {', '.join(labels)}")
    rules = {label: _rule(f"{where}.classes.{label}", rule) for label, rule in classes.items()}
    if rules.get(FACES[0]) != rules.get(FACES[1]):
        raise PolicyFileError(
            f"{where}.classes: {' and '.join(FACES)} must have the same rule or none: a policy does not decide on the "
            "sex of a face"
        )
    return Policy(name, version, rules, hashlib.sha256(canonical(policy)).hexdigest())


def _rule(where: str, entry: object) -> Rule:
    rule = _object(where, entry, optional=("review", "block", "least_area", "why"))
    _why(f"{where}.why", rule.get("why", ""))
    review, block = (_share(f"{where}.{key}", rule[key]) if key in rule else None for key in ("review", "block"))
    if review is None and block is None:
        raise PolicyFileError(f"{where} must have review or block or both, got none")
    if review is not None and block is not None and review > block:
        raise PolicyFileError(f"{where}.review must be at most block, got {review:g} above {block:g}")
    area = rule.get("least_area", 0)
    if isinstance(area, bool) or not isinstance(area, (int, float)) or not 0 <= area < 1:
        raise PolicyFileError(f"{where}.least_area must be a number from 0 to below 1, got {quoted(area)}")
    return Rule(review, block, float(area))


def _share(where: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise PolicyFileError(f"{where} must be a number above 0, up to 1, got {quoted(value)}")
    return float(value)


def _why(where: str, value: object) -> None:
    if not isinstance(value, str) or not value.isprintable() or len(value) > _LONGEST_WHY:
        raise PolicyFileError(
            f"{where} must be one line of at most {_LONGEST_WHY} printable characters, got {quoted(value)}"
        )


def _object(where: str, value: object, required: Sequence[str] = (), optional: Sequence[str] = ()) -> dict[str, Any]:
    """`value` as an object; with names given, it has all of `required` and no others than these and `optional`."""
    if not isinstance(value, dict):
        raise PolicyFileError(f"{where} must be an object, got {quoted(value)}")
    allowed = (*required, *optional)
    for key in value:
        if allowed and key not in allowed:
            raise PolicyFileError(
                f"{where}: unknown key {quoted(key)} with {quoted(value[key])}; allowed: {', '.join(allowed)}"
            )
    for key in required:
        if key not in value:
            raise PolicyFileError(f"{where}: {key!r} is missing; allowed: {', '.join(allowed)}")
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {quoted(key)} stands there twice")
        found[key] = value
    return found


def _no_constants(text: str) -> float:
    raise ValueError(f"{text} is no number in JSON")
