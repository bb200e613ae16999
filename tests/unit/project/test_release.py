"""One version, stated licences, and documents that name what exists."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
VERSION = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]


def test_every_place_has_the_version_of_pyproject():
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == VERSION
    assert json.loads((ROOT / "clients/node/package.json").read_text())["version"] == VERSION
    versioned = re.compile(
        r'image: nudenet-triton[\w-]*:(\S+)|name: nudenet-triton[\w-]*\n\s+newTag: (\S+)|subPath: "(\d\S+)"'
    )
    tags = [tag for path in (ROOT / "deploy").rglob("*.y*ml") for tag in versioned.findall(path.read_text())]
    assert len(tags) == 8
    assert {"".join(tag) for tag in tags} == {VERSION}


def test_every_direct_dependency_has_its_licence_stated():
    text = (ROOT / "docs/LICENCES.md").read_text()
    names = {
        name
        for path in [ROOT / "requirements.txt", *ROOT.glob("requirements/*.txt")]
        if path.name != "constraints.txt" and not path.name.startswith("image-")
        for name in re.findall(r"^([\w.-]+)(?:\[[\w,]+\])?==", path.read_text(), re.MULTILINE)
    }
    assert len(names) > 20
    missing = [name for name in sorted(names) if not re.search(rf"\b{re.escape(name)}\b", text)]
    assert not missing


PAGES = [
    *("README.md", "CONTRIBUTING.md", "SECURITY.md", "clients/python/README.md", "clients/node/README.md"),
    *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
]


@pytest.mark.parametrize("name", PAGES)
def test_documents_name_files_and_commands_that_exist(name: str):
    text = (ROOT / name).read_text()
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)", text, re.MULTILINE):
        assert "".join(target) in targets
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((ROOT / name).parent / link).exists(), link
    present = re.sub(r"From the layout before .*?\n\n(\|.*\n)+", "", text)  # a table of what has moved
    for path in re.findall(r"`((?:build|tools|deploy|tests|docs|model_repository|clients)/[\w./-]*)`", present):
        assert (ROOT / path).exists(), path
