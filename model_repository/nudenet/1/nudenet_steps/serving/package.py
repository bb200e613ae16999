"""Which version of the step package a process runs: a process keeps what it has imported when the files change."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

NAME = "nudenet_package_info"
_FOLDER = Path(__file__).resolve().parents[1]


def digest(folder: Path = _FOLDER) -> str:
    """First 12 hexadecimal digits of the SHA-256 over names and contents of a package's Python files."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        content = path.read_bytes()
        found.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode())
        found.update(content)
    return found.hexdigest()[:12]


def publish(pb_utils: Any) -> tuple[Any, Any] | None:
    """The gauge `NAME`, 1 under the label ``sha256``: processes that run the same code share it.

    Args:
        pb_utils: Triton's module.

    Returns:
        family and metric, which live as long as they are kept; None where the module has no metrics.
    """
    kind: Any = getattr(pb_utils, "MetricFamily", None)
    if kind is None:
        return None
    family = kind(name=NAME, description="Version of the step package that processes run", kind=kind.GAUGE)
    metric = family.Metric(labels={"sha256": digest()})
    metric.set(1)
    return family, metric
