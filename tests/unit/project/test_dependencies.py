"""The dependency policy: everything is pinned exactly, says why it is here, and is covered by constraints.txt."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# What images install is checked with the images.
FILES = [
    ROOT / "requirements.txt",
    *sorted(
        path
        for path in ROOT.glob("requirements/*.txt")
        if path.name != "constraints.txt" and not path.name.startswith("image-")
    ),
]
# Tools that must not hold back what is served, and what replaces a requirement on hosts with a GPU.
INSTALLED_APART = {"chaos.txt", "cuda.txt"}
COVERED = [path for path in FILES if path.name not in INSTALLED_APART]
PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[[a-z,]+\])?==(?P<version>[A-Za-z0-9.+!]+)(; (?P<marker>[^#]+))?")


def entries(path: Path) -> list[tuple[str, str]]:
    """(requirement, comment) of each line that installs something."""
    lines = [line.partition("#") for line in path.read_text().splitlines()]
    return [(text.strip(), comment.strip()) for text, _, comment in lines if text.strip()]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(path: Path) -> set[tuple[str, str]]:
    found = (PIN.match(requirement) for requirement, _ in entries(path) if not requirement.startswith("-r"))
    return {(canonical(match["name"]), match["version"]) for match in found if match}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_requirement_is_pinned_exactly(path):
    for requirement, _ in entries(path):
        if requirement.startswith("-r "):
            assert (path.parent / requirement.split()[1]).is_file()
        else:
            assert PIN.fullmatch(requirement), f"{path.name}: {requirement!r} is not pinned with =="


@pytest.mark.parametrize("path", COVERED, ids=lambda path: path.name)
def test_constraints_cover_every_requirement(path):
    missing = pins(path) - pins(ROOT / "requirements" / "constraints.txt")
    assert not missing, f"regenerate constraints.txt (tools/pin.sh): {sorted(missing)}"


def test_nothing_is_installed_from_elsewhere():
    """No other index, no URL, no repository: names and versions only."""
    for path in [*FILES, ROOT / "requirements" / "constraints.txt"]:
        for requirement, _ in entries(path):
            assert "://" not in requirement
            assert " @ " not in requirement
            assert not requirement.startswith(("--", "-e", "-i", "-f"))


def test_numpy_stays_below_two():
    """Triton 2.51.0's Python backend is built against numpy 1."""
    assert ("numpy", "1.26.4") in pins(ROOT / "requirements" / "constraints.txt")


def test_no_weights_plans_or_keys_are_committed():
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    suffixes = {".onnx", ".plan", ".engine", ".npy", ".npz", ".pt", ".pth", ".key", ".pem", ".p12", ".pfx"}
    assert [name for name in listing.splitlines() if Path(name).suffix in suffixes] == []
