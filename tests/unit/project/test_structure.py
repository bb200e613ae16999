"""The tree keeps its promises: one way to import, no links, commands that stand alone, every file type-checked."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from nudenet_tools import ROOT

# Where the import path may be extended: once for each tree of commands, and in what Triton loads without packages.
EXTEND_THE_PATH = {
    "build/nudenet_build/__init__.py",
    "tools/nudenet_tools/__init__.py",
    "model_repository/nudenet_preprocess/1/model.py",
    "model_repository/nudenet_trt/1/model.py",
    "model_repository/nudenet_postprocess/1/model.py",
}
MODELS = sorted(ROOT.glob("model_repository/*/1/model.py"))


@cache
def tracked() -> list[tuple[str, str]]:
    """Mode and name of every file in the index, with what is new and not ignored."""
    listing = subprocess.run(["git", "ls-files", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [(line.split()[0], line.split("\t", 1)[1]) for line in listing.splitlines()]


@cache
def python_files() -> dict[str, ast.Module]:
    names = [name for _, name in tracked() if name.endswith(".py") and (ROOT / name).is_file()]
    assert len(names) > 150
    return {name: ast.parse((ROOT / name).read_text()) for name in names}


def is_path(node: ast.AST) -> bool:
    """Whether `node` is ``sys.path`` or a part of it."""
    if isinstance(node, ast.Subscript):
        node = node.value
    return ast.unparse(node) == "sys.path" if isinstance(node, ast.Attribute) else False


def edits_path(tree: ast.Module) -> bool:
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, (ast.Assign, ast.Delete)) else []
        targets = [node.target] if isinstance(node, (ast.AugAssign, ast.AnnAssign)) else targets
        if any(is_path(target) for target in targets):
            return True
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and is_path(node.func.value):
            return True
    return False


@pytest.mark.parametrize(
    "code", ["sys.path.append('x')", "sys.path += ['x']", "sys.path[:0] = ['x']", "sys.path = []", "del sys.path[0]"]
)
def test_an_edit_of_the_path_is_recognised(code):
    assert edits_path(ast.parse(code))
    assert not edits_path(ast.parse("print(sys.path, str(x) in sys.path)"))


def test_the_import_path_is_extended_only_in_the_declared_places():
    assert {name for name, tree in python_files().items() if edits_path(tree)} == EXTEND_THE_PATH


def test_there_are_no_symbolic_links():
    assert [name for mode, name in tracked() if mode == "120000"] == []


def test_imports_are_sorted_without_exceptions():
    marker = "isort:" + " skip"
    assert [name for name in python_files() if marker in (ROOT / name).read_text()] == []


@pytest.mark.parametrize("folder", ["tools", "build"])
def test_no_command_imports_another(folder):
    """What two commands share is in a package behind them."""
    commands = {path.stem for path in ROOT.glob(f"{folder}/*.py")}
    assert len(commands) >= 4
    for name, tree in python_files().items():
        if not name.startswith(f"{folder}/"):
            continue
        imported = {
            alias.name.partition(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        } | {
            (node.module or "").partition(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and not node.level
        }
        assert not imported & commands, f"{name} imports a command"


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.parts[-3])
def test_the_models_pass_mypy(path):
    """One run each: mypy knows a single module `model`."""
    command = [Path(sys.executable).with_name("mypy"), path]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_stub_has_only_names_of_the_real_module():
    """tests/helpers/stubs speaks for a module that only Triton can import."""
    import pytriton

    folder = Path(next(iter(pytriton.__path__))) / "tritonserver" / "backends" / "python"
    real = (folder / "triton_python_backend_utils.py").read_text()
    stub = ast.parse((ROOT / "tests/helpers/stubs/triton_python_backend_utils.pyi").read_text())
    functions = [node.name for node in stub.body if isinstance(node, ast.FunctionDef)]
    assert len(functions) >= 3
    assert [name for name in functions if not re.search(rf"^def {name}\(", real, re.MULTILINE)] == []


def test_every_page_of_the_documentation_is_reached_from_the_readme():
    reached: set[Path] = set()
    waiting = {ROOT / "README.md"}
    while waiting:
        page = waiting.pop()
        reached.add(page)
        links = re.findall(r"\]\(([^)#:]+\.md)[)#]", page.read_text())
        waiting |= {target for link in links if (target := (page.parent / link).resolve()).is_file()} - reached
    assert set((ROOT / "docs").glob("*.md")) - reached == set()
