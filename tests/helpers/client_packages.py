"""The clients as a stranger gets them: installed from a package, beside nothing of this repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NODE_CLIENT = ROOT / "clients" / "node"
# The tests themselves run with numpy 1 and the tritonclient of their server, which accepts no other.
NUMPY_2 = ("numpy==2.2.6", "tritonclient==2.70.0", "grpcio==1.67.1", "protobuf==6.33.6")


def run(*command: object, cwd: Path, **environment: str) -> str:
    """Standard output and error of a command that must succeed, without our import path."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
    result = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=variables,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def copy_python_client(folder: Path) -> None:
    """``folder/clients/python``, free of what earlier builds left."""
    leftovers = shutil.ignore_patterns("build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT / "clients" / "python", folder / "clients" / "python", ignore=leftovers)


def install_python_client(folder: Path) -> Path:
    """A virtual environment made by ``pip install ./clients/python``, with numpy 2; returns its Python."""
    copy_python_client(folder)
    run(sys.executable, "-m", "venv", "env", cwd=folder)
    python = folder / "env" / "bin" / "python"
    options = ("--quiet", "--disable-pip-version-check", "--no-compile")
    run(python, "-m", "pip", "install", "./clients/python", *NUMPY_2, *options, cwd=folder)
    return python


def install_node_dependencies() -> None:
    """``npm ci`` in the Node.js client's folder, where it has not been done for this lock file."""
    done = NODE_CLIENT / "node_modules" / ".package-lock.json"  # npm writes it last
    if not done.is_file() or done.stat().st_mtime < (NODE_CLIENT / "package-lock.json").stat().st_mtime:
        run("npm", "ci", "--ignore-scripts", cwd=NODE_CLIENT)


def install_node_client(folder: Path) -> None:
    """A Node.js project in `folder` with the package that ``npm pack`` makes."""
    install_node_dependencies()
    run("npm", "pack", NODE_CLIENT, cwd=folder, PYTHON=sys.executable)
    (package,) = folder.glob("*.tgz")
    (folder / "package.json").write_text('{"name": "a-stranger", "private": true, "type": "module"}')
    run("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", package, cwd=folder)
