"""The bill of materials lists what is installed, once, with package URLs."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from container import sbom

STATUS = """Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9+deb12u13
Description: library
 more: of it

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1
"""


def test_debian_packages_that_are_installed(tmp_path: Path):
    (tmp_path / "status").write_text(STATUS)
    (component,) = sbom.debian_packages(tmp_path / "status")
    assert (component["name"], component["version"]) == ("libc6", "2.36-9+deb12u13")
    assert component["purl"].endswith("/libc6@2.36-9%2Bdeb12u13?arch=amd64")
    assert sbom.debian_packages(tmp_path / "missing") == []


def test_python_packages_of_this_environment():
    document = sbom.document()
    urls = [component["purl"] for component in document["components"]]
    assert len(urls) == len(set(urls))
    assert f"pkg:pypi/numpy@{importlib.metadata.version('numpy')}" in urls
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
