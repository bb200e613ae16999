"""System packages that cannot come into the virtual environment: what is missing, and its installation where allowed.

Set-up runs this file before the virtual environment exists, so it imports the standard library only.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from nudenet_tools import ROOT
from nudenet_tools.server import libpython

PYTHON = "python{}.{}".format(*sys.version_info[:2])
GROUPS = ("setup", "server", "tests")
BUILDS = f"pip compiles a part of Triton's client for Python {PYTHON.removeprefix('python')}"
_PYTHON_H = Path(sysconfig.get_path("include")) / "Python.h"


@dataclass(frozen=True)
class Package:
    """One system package.

    Attributes:
        program: what it brings; tests call it that in their marker `needs`.
        name: its name in Debian and Ubuntu.
        purpose: what needs it.
        group: "setup" (there is no virtual environment without it), "server" or "tests".
        present: whether what it brings is on this machine, from whatever source.
    """

    program: str
    name: str
    purpose: str
    group: str
    present: Callable[[], bool]


def find(program: str) -> str | None:
    """Path of a program; also in /usr/sbin, which an ordinary user's PATH on Debian lacks."""
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")


def _has_venv() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("ensurepip", "venv"))


def _nothing_to_build() -> bool:
    """geventhttpclient 2.0.2, the newest that tritonclient 2.51.0 accepts, has no wheel for Python 3.12."""
    installed = (ROOT / ".venv" / "lib" / PYTHON / "site-packages" / "geventhttpclient").is_dir()
    return sys.version_info < (3, 12) or installed


def _has_compose() -> bool:
    if find("docker-compose") is not None:
        return True
    if (docker := find("docker")) is None:
        return False
    return subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0


PACKAGES = (
    Package("venv", f"{PYTHON}-venv", "creates the virtual environment", "setup", _has_venv),
    Package("gcc", "gcc", BUILDS, "setup", lambda: _nothing_to_build() or find("gcc") is not None),
    Package("headers", f"{PYTHON}-dev", BUILDS, "setup", lambda: _nothing_to_build() or _PYTHON_H.is_file()),
    Package(
        "libpython",
        f"lib{PYTHON}",
        f"Triton's Python backend loads {libpython.name()}: no server starts without it",
        "server",
        lambda: libpython.directory() is not None,
    ),
    Package(
        "prometheus",
        "prometheus",
        "tests run it and its promtool",
        "tests",
        lambda: find("prometheus") is not None and find("promtool") is not None,
    ),
    Package("g++", "g++", "a test compiles the GPU's kernel with it", "tests", lambda: find("g++") is not None),
    Package("nginx", "nginx-light", "tests start it as a gRPC proxy", "tests", lambda: find("nginx") is not None),
    Package(
        "chromium",
        "chromium",
        "tests open the page of make ui in it",
        "tests",
        lambda: find("chromium") is not None or find("google-chrome") is not None,
    ),
    Package("docker-compose", "docker-compose", "tests check deploy/compose.yaml with it", "tests", _has_compose),
    Package("curl", "curl", "tests run the README's commands", "tests", lambda: find("curl") is not None),
    Package("openssl", "openssl", "tests make certificates with it", "tests", lambda: find("openssl") is not None),
)


def missing(groups: Iterable[str] = GROUPS) -> list[Package]:
    """The packages of these groups that bring what this machine lacks."""
    return [package for package in PACKAGES if package.group in groups and not package.present()]


def can_install(name: str) -> bool:
    """Whether set-up may install packages here (root, apt-get) and the distribution offers this one."""
    return _may_install() and offers(name)


@functools.cache
def offers(name: str) -> bool:
    """Whether apt-get knows this package and could install it."""
    return shutil.which("apt-get") is not None and _apt_get("--simulate", "install", name).returncode == 0


def _may_install() -> bool:
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def _apt_get(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["apt-get", "-y", "-qq", "-o", "DPkg::Lock::Timeout=120", "--no-install-recommends", *arguments],
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def install(packages: list[Package]) -> None:
    """Install what the distribution offers of these packages.

    Raises:
        SystemExit: apt-get failed; the message holds what it said.
    """
    if not all(can_install(package.name) for package in packages):  # package lists may be missing
        _apt_get("update")
        offers.cache_clear()
    offered = [package.name for package in packages if can_install(package.name)]
    if not offered:
        return
    print(f"setup: installing {' '.join(offered)}", file=sys.stderr)
    if _apt_get("install", *offered).returncode != 0:  # or old
        _apt_get("update")
        result = _apt_get("install", *offered)
        if result.returncode != 0:
            sys.exit(f"setup: could not install {' '.join(offered)}; apt-get said:\n{result.stderr.strip()}")


def report(packages: list[Package]) -> str:
    """What is missing, what for, and what to do about it."""
    width = max(len(package.name) for package in packages)
    lines = ["setup: system packages are missing that set-up cannot install here:"]
    lines += [f"  {package.name:{width}}  {package.purpose}" for package in packages]
    names = [package.name for package in packages]
    # A machine without package lists offers nothing: then its distribution is unknown, and the names are Debian's.
    offered = [name for name in names if offers(name)] or ([] if _may_install() else names)
    if offered:
        lines.append(f"on Debian and Ubuntu, as root: apt-get install --no-install-recommends {' '.join(offered)}")
    if others := [name for name in names if name not in offered]:
        lines.append(f"not offered by this distribution, to be installed in another way: {' '.join(others)}")
    return "\n".join([*lines, "until then, make test leaves out the tests that need them and says how many"])


def main(groups: tuple[str, ...]) -> int:
    """Install or name what is missing. Exit status 1: set-up cannot go on."""
    if _may_install() and (found := missing(groups)):
        install(found)
    if missing(groups):
        print(report(missing()), file=sys.stderr)
    if needed := missing(("setup",)):
        print(f"setup: cannot go on without {', '.join(package.name for package in needed)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    if not sys.argv[1:] or not set(sys.argv[1:]) <= set(GROUPS):
        sys.exit(f"usage: system_packages.py GROUP...; a GROUP is one of {', '.join(GROUPS)}, got {sys.argv[1:]}")
    sys.exit(main(tuple(sys.argv[1:])))
