"""The hash of the step package follows its code and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import nudenet_steps
from nudenet_steps.serving import package

CODE = Path(nudenet_steps.__file__).parent


def test_the_same_code_has_the_same_hash_anywhere_and_other_code_another(tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(CODE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "notes.txt").write_text("not code")
    assert package.digest(copy) == package.digest()
    module = copy / "serving" / "package.py"
    module.write_text(module.read_text() + "\n")
    changed = package.digest(copy)
    assert changed != package.digest()
    module.rename(copy / "serving" / "other.py")
    assert package.digest(copy) not in (changed, package.digest())
