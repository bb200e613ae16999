#!/usr/bin/env python3
"""Write what is installed here, Python's and Debian's packages, as a software bill of materials (CycloneDX 1.6, JSON).

docker run --rm --entrypoint python3 IMAGE -m container.sbom > image.cdx.json
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import sys
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote

_DPKG = Path("/var/lib/dpkg/status")


def python_packages() -> list[dict[str, Any]]:
    """Distributions that this Python finds, once each."""
    found = {}
    for distribution in importlib.metadata.distributions():
        name, version = distribution.metadata["Name"], distribution.version
        if name:  # a broken one has none
            found[name.lower()] = _component(name, version, f"pkg:pypi/{quote(name.lower())}@{quote(version)}")
    return list(found.values())


def debian_packages(status: Path = _DPKG) -> list[dict[str, Any]]:
    """Installed packages of Debian or Ubuntu; none on other systems."""
    if not status.is_file():
        return []
    system = platform.freedesktop_os_release().get("ID", "debian")
    found = []
    for entry in status.read_text(errors="replace").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in entry.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Status", "").endswith(" installed"):
            name, version = fields["Package"], fields["Version"]
            purl = f"pkg:deb/{system}/{quote(name)}@{quote(version)}?arch={fields['Architecture']}"
            found.append(_component(name, version, purl))
    return found


def _component(name: str, version: str, purl: str) -> dict[str, Any]:
    return {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl}


def document() -> dict[str, Any]:
    """The bill of materials of this system."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid4()}",
        "version": 1,
        "metadata": {"timestamp": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")},
        "components": sorted(python_packages() + debian_packages(), key=lambda component: component["purl"]),
    }


if __name__ == "__main__":
    json.dump(document(), sys.stdout, indent=1)
