"""A strict stand-in for the ``tensorrt`` module, made from a recording of the real bindings.

It knows exactly the names, members, overloads, parameter names and types of one TensorRT version. An unknown member,
a wrong number of arguments, an unknown keyword or a wrong type raises what pybind11 raises. What a call does comes
from a `behaviour` object with methods named ``Class_method``; a call that it does not know is an error too.
"""

from __future__ import annotations

import dataclasses
import enum
import re
import types
from collections.abc import Callable
from typing import Any

from tensorrt_api import record

OVERRIDABLE = ("ILogger", "IProgressMonitor")  # classes that Python code derives from
SIMPLE_TYPES: dict[str, Callable[[Any], bool]] = {
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "str": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    "tuple": lambda value: isinstance(value, tuple),
    "list": lambda value: isinstance(value, list),
    "object": lambda value: True,
    "buffer": lambda value: isinstance(value, (bytes, bytearray, memoryview)),
    "Dims": lambda value: isinstance(value, (tuple, list)) and all(type(side) is int for side in value),
    "None": lambda value: value is None,
}
SAME_TYPE = {
    "typing.SupportsInt": "int",
    "typing.SupportsInt | typing.SupportsIndex": "int",
    "typing_extensions.Buffer": "buffer",
    "collections.abc.Buffer": "buffer",
}


class ContractError(AssertionError):
    """The stand-in was used beyond what it was made for: extend recording or behaviour, after checking the call."""


@dataclasses.dataclass(frozen=True)
class Signature:
    """One overload: parameters after self as (name, type, has default), and the return type."""

    parameters: list[tuple[str, str, bool]]
    returns: str


def _split(text: str) -> list[str]:
    """Split at commas outside of brackets."""
    parts, depth, current = [], 0, ""
    for character in text:
        depth += character in "[(<"
        depth -= character in "])>"
        if character == "," and depth == 0:
            parts.append(current.strip())
            current = ""
        else:
            current += character
    return [*parts, current.strip()] if current.strip() else parts


def parse(line: str) -> Signature:
    """A recorded signature line."""
    match = re.fullmatch(r"\w+\((.*)\) -> (.*)", line)
    if match is None:
        raise ContractError(f"cannot read the signature {line!r}")
    parameters = []
    for part in _split(match.group(1))[1:]:  # the first is self
        name, _, kind = part.partition(":")
        kind, equals, _ = kind.partition(" = ")
        parameters.append((name.strip(), kind.strip(), bool(equals)))
    return Signature(parameters, match.group(2).strip())


class TensorRT(types.ModuleType):
    """The module. `calls` lists what was called, in order, as ``Class.method`` with the bound arguments."""

    def __init__(self, version: str, behaviour: Any) -> None:
        super().__init__("tensorrt")
        self._recording = record.load(version)
        self.__version__ = version
        self._behaviour = behaviour
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._classes: dict[str, type] = {}
        self._severity = enum.Enum("Severity", self._recording["severities"])  # type: ignore[misc]
        for name, members in self._recording["classes"].items():
            self._classes[name] = self._make_class(name, members)
        behaviour.trt = self

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("_classes", {}):
            return self._classes[name]
        if name in self.__dict__.get("_recording", {}).get("names", ()):
            raise ContractError(f"tensorrt.{name} exists but is not recorded: add it to record.CLASSES")
        raise AttributeError(f"module 'tensorrt' has no attribute {name!r}")

    def called(self, name: str) -> list[dict[str, Any]]:
        """Arguments of every call of ``Class.method``."""
        return [arguments for call, arguments in self.calls if call == name]

    def new(self, name: str) -> Any:
        """An instance that only TensorRT itself may make."""
        cls = self._classes[name]
        return cls.__new__(cls)

    def _make_class(self, name: str, members: dict[str, Any]) -> type:
        if members["enumerators"]:
            return enum.Enum(name, members["enumerators"], type=_Number)  # type: ignore[return-value]
        space: dict[str, Any] = {"_name": name, "_module": self}
        for method, lines in members["methods"].items():
            if method not in ("__del__", "__init__"):
                space[method] = self._make_method(name, method, [parse(line) for line in lines])
        for attribute, access in members["properties"].items():
            space[attribute] = self._make_property(name, attribute, access == "read/write")
        for value in members["values"]:
            space[value] = self._severity if value == "Severity" else getattr(self._severity, value)
        constructor = [parse(line) for line in members["methods"].get("__init__", ())]
        space["__init__"] = self._make_constructor(name, constructor)
        if name == "IHostMemory":
            return type(name, (bytes,), {"_name": name})  # the real one offers the buffer protocol
        return type(name, (_Object,), space)

    def _make_constructor(self, name: str, signatures: list[Signature]) -> Callable[..., None]:
        def __init__(this: Any, *args: Any, **kwargs: Any) -> None:
            if not signatures:
                raise TypeError(f"{name}: No constructor defined!")
            _, arguments = self._bind(f"{name}()", signatures, args, kwargs)
            this.__dict__["_constructed"] = True
            self.calls.append((name, arguments))
            if behave := getattr(self._behaviour, f"{name}_init", None):
                behave(this, **arguments)

        return __init__

    def _make_method(self, name: str, method: str, signatures: list[Signature]) -> Callable[..., Any]:
        def call(this: Any, *args: Any, **kwargs: Any) -> Any:
            signature, arguments = self._bind(f"{name}.{method}", signatures, args, kwargs)
            self.calls.append((f"{name}.{method}", arguments))
            behave = getattr(self._behaviour, f"{name}_{method}", None)
            if behave is None:
                raise ContractError(f"{name}.{method} was called, but the behaviour does not cover it")
            result = behave(this, **arguments)
            if not self._fits(signature.returns, result, nullable=True):
                raise ContractError(f"the behaviour of {name}.{method} returned {result!r}, not {signature.returns}")
            return result

        return call

    def _make_property(self, name: str, attribute: str, writable: bool) -> property:
        def read(this: Any) -> Any:
            if attribute in this.__dict__:
                return this.__dict__[attribute]
            behave = getattr(self._behaviour, f"{name}_{attribute}", None)
            if behave is None:
                raise ContractError(f"{name}.{attribute} was read, but the behaviour does not cover it")
            return behave(this)

        def write(this: Any, value: Any) -> None:
            self.calls.append((f"{name}.{attribute}=", {"value": value}))
            this.__dict__[attribute] = value

        return property(read, write if writable else None)

    def _bind(
        self, what: str, signatures: list[Signature], args: tuple, kwargs: dict[str, Any]
    ) -> tuple[Signature, dict[str, Any]]:
        reasons = []
        for signature in signatures:
            names = [name for name, _, _ in signature.parameters]
            bound = dict(zip(names, args, strict=False))
            if len(args) > len(names):
                reasons.append(f"takes {len(names)} arguments, got {len(args)}")
            elif unknown := [name for name in kwargs if name not in names or name in bound]:
                reasons.append(f"no parameter {unknown[0]!r} left")
            else:
                bound.update(kwargs)
                missing = [name for name, _, default in signature.parameters if name not in bound and not default]
                wrong = [n for n, kind, _ in signature.parameters if n in bound and not self._fits(kind, bound[n])]
                if not missing and not wrong:
                    return signature, bound
                reasons.append(f"missing {missing}" if missing else f"wrong type of {wrong}: {bound}")
        raise TypeError(f"{what}: incompatible function arguments: {'; or '.join(reasons)}")

    def _fits(self, kind: str, value: Any, nullable: bool = False) -> bool:
        kind = SAME_TYPE.get(kind, kind)
        if match := re.fullmatch(r"(?:List|list)\[.*\]", kind):
            del match
            return isinstance(value, list)
        if kind == "ILogger.Severity":
            return isinstance(value, self._severity)
        if kind in SIMPLE_TYPES:
            return SIMPLE_TYPES[kind](value)
        kind = {"nvonnxparser::IParserError": "ParserError"}.get(kind, kind)
        if kind not in self._classes:
            raise ContractError(f"the type {kind!r} is not recorded: add it to record.CLASSES")
        if nullable and value is None:
            return True
        if isinstance(value, self._classes[kind]):
            if kind in OVERRIDABLE and not value.__dict__.get("_constructed"):
                raise TypeError(f"{kind}.__init__() must be called when overriding __init__")
            return True
        return False


class _Number:
    """Makes enumerators convertible with int(), as pybind11's are, and with nothing else."""

    def __int__(self) -> int:
        return self.value  # type: ignore[attr-defined, no-any-return]


class _Object:
    """Instances take no attributes beyond their recorded properties, except in derived Python classes."""

    _name = ""

    def __setattr__(self, name: str, value: Any) -> None:
        member = getattr(type(self), name, None)
        if isinstance(member, property) or type(self).__name__ != self._name:
            object.__setattr__(self, name, value)
        else:
            raise AttributeError(f"{self._name!r} object has no attribute {name!r}")


class CudaRuntime(types.ModuleType):
    """The same for ``cuda.bindings.runtime``: recorded functions with their number of arguments, and enumerators."""

    def __init__(self, version: str, behaviour: Any) -> None:
        super().__init__("cuda.bindings.runtime")
        recording = record.load(version, "cuda")
        self._functions = recording["functions"]
        self._behaviour = behaviour
        for name, members in recording["enums"].items():
            setattr(self, name, enum.IntEnum(name, members))
        behaviour.runtime = self

    def __getattr__(self, name: str) -> Any:
        if name not in self.__dict__.get("_functions", {}):
            raise AttributeError(f"module 'cuda.bindings.runtime' has no attribute {name!r}")
        parameters = self._functions[name]

        def call(*args: Any) -> tuple:
            if len(args) != len(parameters):
                raise TypeError(f"{name}() takes {len(parameters)} arguments, got {len(args)}")
            behave = getattr(self._behaviour, name, None)
            if behave is None:
                raise ContractError(f"{name} was called, but the behaviour does not cover it")
            return behave(*args)

        return call
