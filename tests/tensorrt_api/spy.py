"""Which calls the converter makes: the real library, watched, and compared with a recording of another version."""

from __future__ import annotations

import inspect
import re
import types
from typing import Any

import pytest

WATCHED = (
    "Builder", "IBuilderConfig", "IHostMemory", "ILogger", "INetworkDefinition", "IOptimizationProfile",
    "IProgressMonitor", "ITensor", "ITimingCache", "OnnxParser", "ParserError",
)  # fmt: skip


class Calls:
    """Members used so far: ``Class.member`` -> positional arguments without self, and names of keyword arguments."""

    def __init__(self) -> None:
        self.made: list[tuple[str, int, tuple[str, ...]]] = []

    def add(self, name: str, arguments: tuple = (), keywords: dict[str, Any] | None = None) -> None:
        """Note one call or access."""
        self.made.append((name, len(arguments), tuple(keywords or ())))

    def unfit(self, recording: dict[str, str]) -> list[str]:
        """Calls that the recorded version would refuse."""
        found = []
        for name, count, keywords in dict.fromkeys(self.made):
            lines = recording.get(name, "").split("\n")
            if lines == [""] or ("(" in lines[0] and not any(_binds(line, count, keywords) for line in lines)):
                found.append(f"{name}({count} arguments, {', '.join(keywords)})")
        return found


def _binds(line: str, count: int, keywords: tuple[str, ...]) -> bool:
    """Whether the recorded signature takes `count` positional arguments and these keywords."""
    inside = re.fullmatch(r"\w+\((.*)\) -> .*", line)
    parts = re.sub(r"<[^>]*>", "x", inside.group(1)).split(", ")[1:] if inside else []
    names = [part.split(":")[0] for part in parts]
    needed = {name for name, part in zip(names, parts, strict=True) if " = " not in part}
    given = {*names[:count], *keywords}
    return count <= len(names) and needed <= given and set(keywords) <= set(names[count:])


class Watched(types.ModuleType):
    """TensorRT for RTX under another name and version; notes the enumerators that are read. Classes may be replaced."""

    def __init__(self, module: Any, calls: Calls, version: str, **replaced: Any) -> None:
        super().__init__("tensorrt")
        self._module, self._calls = module, calls
        self.__version__ = version
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        if name in ("CudaGraphStrategy", "ComputeCapability") or not hasattr(self._module, name):
            raise AttributeError(f"module 'tensorrt' has no attribute {name!r}")
        member = getattr(self._module, name)
        return _Enumerators(name, member, self._calls) if hasattr(member, "__members__") else member


class _Enumerators:
    def __init__(self, name: str, member: Any, calls: Calls) -> None:
        self._name, self._member, self._calls = name, member, calls

    def __getattr__(self, name: str) -> Any:
        self._calls.add(f"{self._name}.{name}")
        return getattr(self._member, name)


def watch(module: Any, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Note every call and property access of the classes that the converter meets."""
    calls = Calls()
    for class_name in WATCHED:
        cls = getattr(module, class_name)
        for name in sorted(set(dir(cls)) - set(dir(object)) | {"__init__"}):
            member = inspect.getattr_static(cls, name)
            label = f"{class_name}.{name}"
            if isinstance(member, property):
                monkeypatch.setattr(cls, name, _watched_property(member, label, calls))
            elif not inspect.isclass(getattr(cls, name)) and (name == "__init__" or not name.startswith("_")):
                monkeypatch.setattr(cls, name, _watched_method(getattr(cls, name), label, calls))
    return calls


def _watched_method(method: Any, label: str, calls: Calls) -> Any:
    def call(this: Any, *arguments: Any, **keywords: Any) -> Any:
        calls.add(label, arguments, keywords)
        return method(this, *arguments, **keywords)

    return call


def _watched_property(member: Any, label: str, calls: Calls) -> property:
    def read(this: Any) -> Any:
        calls.add(label)
        return member.__get__(this)

    def write(this: Any, value: Any) -> None:
        calls.add(label)
        member.__set__(this, value)

    return property(read, write)
