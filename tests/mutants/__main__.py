"""Change the pure modules of steps and clients a little, one change at a time, and see whether their tests notice.

    PYTHONPATH=tests python -m mutants            all modules
    PYTHONPATH=tests python -m mutants jpeg nms   modules of these names

mutmut makes the changes and runs the tests, in a copy of the code below .cache/mutants: the tree stays as it is.
The wording of errors is left alone. Changes that no test can notice, because they change nothing that anybody sees,
stand in equivalent.txt with the reason.
Exit status 1 where fewer than 95 % of the others are noticed.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COPY = ROOT / ".cache" / "mutants"
EQUIVALENT = Path(__file__).with_name("equivalent.txt")
LEAST = 0.95
SOURCES = {"nudenet_steps": ROOT / "model_repository/nudenet/1", "nudenet_client": ROOT / "clients/python"}
_COLOURS = [f"nudenet_steps/preprocess/test_{name}.py" for name in ("icc", "colour", "vectors")]
# Module -> its tests.
MODULES = {
    "nudenet_steps/preprocess/exif.py": ["nudenet_steps/preprocess"],
    "nudenet_steps/preprocess/header_edits.py": ["nudenet_steps/preprocess"],
    "nudenet_steps/preprocess/jpeg.py": ["nudenet_steps/preprocess"],
    "nudenet_steps/preprocess/icc.py": _COLOURS,  # the client's copies are the same
    "nudenet_steps/preprocess/icc_tags.py": _COLOURS,
    "nudenet_steps/preprocess/colour.py": _COLOURS,
    "nudenet_steps/preprocess/colour_spaces.py": _COLOURS,
    "nudenet_steps/preprocess/canvas.py": ["nudenet_steps/preprocess/test_canvas.py"],
    "nudenet_steps/preprocess/letterbox.py": ["nudenet_steps/preprocess"],
    "nudenet_steps/postprocess/nms.py": ["nudenet_steps/postprocess"],
    "nudenet_steps/postprocess/parameters.py": ["nudenet_steps/postprocess"],
    "nudenet_steps/postprocess/policy.py": ["nudenet_steps/postprocess"],
    "nudenet_steps/postprocess/policy_file.py": ["nudenet_steps/postprocess"],
    "nudenet_client/convert.py": ["clients/test_pictures.py"],
    "nudenet_client/file_colours.py": ["clients/test_pictures.py"],
    "nudenet_client/jpeg.py": ["clients/test_pictures.py", "nudenet_steps/preprocess/test_exif.py"],
    "nudenet_client/pictures.py": ["clients/test_pictures.py"],
}
# Hypothesis tries other examples each time: what it notices once it may miss the next time.
NOT_FOR_THIS = "not cleanly and not damaged_headers"
_NOTICED = (1, 3)  # exit statuses of mutmut's children: a test failed, pytest broke off
_NO_TESTS, _TIMEOUT = 33, (24, 36, 152, 255)


@dataclass(frozen=True)
class Mutant:
    """One change. `status` is the exit status of its tests."""

    name: str
    status: int | None

    @property
    def noticed(self) -> bool:
        """Whether a test failed, or ran for ever."""
        return self.status in _NOTICED or self.status in _TIMEOUT

    def change(self) -> str:
        """The changed lines, as ``- old`` and ``+ new``."""
        shown = mutmut("show", self.name).stdout.splitlines()
        lines = [line for line in shown if line[:1] in "+-" and line[:3] not in ("+++", "---")]
        return "\n".join(f"{line[0]} {line[1:].strip()}" for line in lines)


def is_wording(mutant: Mutant) -> bool:
    """Whether the change is one of an error's text."""
    return all(line[2:].startswith(("raise ", 'f"', '"', "JpegError(")) for line in mutant.change().splitlines())


def mutmut(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run mutmut in the copy."""
    program = Path(sys.executable).with_name("mutmut")
    options = {"capture_output": True, **options}
    return subprocess.run([str(program), *arguments], cwd=COPY, text=True, check=False, **options)  # type: ignore[call-overload]


def lay_out(modules: list[str]) -> None:
    """Copy sources and tests into the one layout that mutmut knows: packages below src/."""
    shutil.rmtree(COPY, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__", "*.onnx", "*.plan", "*.egg-info", "node_modules")
    for package, folder in SOURCES.items():
        shutil.copytree(folder / package, COPY / "src" / package, ignore=ignored)
    for name in ("tests", "tools", "build"):
        shutil.copytree(ROOT / name, COPY / name, ignore=ignored)
    # Where the mutated steps, in mutants/src/ below the copy, look for their neighbours.
    for name in ("nudenet_preprocess", "nudenet_trt", "nudenet_postprocess"):
        shutil.copytree(ROOT / "model_repository" / name, COPY / name, ignore=ignored)
    tests = sorted({f"tests/unit/{test}" for module in modules for test in MODULES[module]})
    settings = {
        "tool.mutmut": {
            "source_paths": ["src"],
            "only_mutate": [f"src/{module}" for module in modules],
            "also_copy": ["tests", "tools", "build", "pyproject.toml"],
            "pytest_add_cli_args_test_selection": tests,
            "pytest_add_cli_args": ["-p", "no:cacheprovider", "-k", NOT_FOR_THIS],
        },
        "tool.pytest.ini_options": {
            "pythonpath": ["src", "tools", "tests", "build"],
            "addopts": "--import-mode=importlib",
        },
    }
    text = ""
    for table, values in settings.items():
        text += f"[{table}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
    (COPY / "pyproject.toml").write_text(text)


def results() -> list[Mutant]:
    """All changes and what became of them."""
    found = []
    for path in sorted(COPY.glob("mutants/**/*.meta")):
        for name, status in json.loads(path.read_text())["exit_code_by_key"].items():
            found.append(Mutant(name, status))
    return found


def equivalents() -> list[str]:
    """The patterns of changes that nobody can notice: function, then the new line."""
    lines = EQUIVALENT.read_text().splitlines() if EQUIVALENT.exists() else []
    return [line for line in lines if line and not line.startswith("#")]


def is_equivalent(mutant: Mutant, patterns: list[str]) -> bool:
    """Whether the change is one of equivalent.txt: ``function: new line``, both with wildcards."""
    function = mutant.name.rpartition("__mutmut_")[0]
    new = [line[2:] for line in mutant.change().splitlines() if line.startswith("+")]
    return any(fnmatch.fnmatchcase(f"{function}: {line}", pattern) for line in new for pattern in patterns)


def main() -> int:
    """Run and report. Exit status 1: too much goes unnoticed."""
    parser = argparse.ArgumentParser(description="Mutation tests of the pure modules.")
    parser.add_argument("modules", nargs="*", help="names of modules, e.g. jpeg; default: all")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="tests at a time (default %(default)s)")
    options = parser.parse_args()
    wanted = [module for module in MODULES if not options.modules or Path(module).stem in options.modules]
    if not wanted:
        parser.error(f"no such module; there are {', '.join(sorted({Path(module).stem for module in MODULES}))}")
    lay_out(wanted)
    run = mutmut("run", "--max-children", str(options.processes))
    mutants = results()
    if run.returncode or not mutants:
        print(run.stdout[-2000:], run.stderr[-2000:], sep="\n", file=sys.stderr)
        return 2
    patterns = equivalents()
    failed = False
    for module in wanted:
        dotted = module.removesuffix(".py").replace("/", ".")
        mine = [mutant for mutant in mutants if mutant.name.startswith(f"{dotted}.")]
        unnoticed = [mutant for mutant in mine if not mutant.noticed]
        wording = [mutant for mutant in unnoticed if is_wording(mutant)]
        mine = [mutant for mutant in mine if mutant not in wording]
        unnoticed = [mutant for mutant in unnoticed if mutant not in wording]
        survivors = [mutant for mutant in unnoticed if not is_equivalent(mutant, patterns)]
        total = len(mine) - len(unnoticed) + len(survivors)
        share = (total - len(survivors)) / total if total else 1.0
        failed |= share < LEAST
        named = len(unnoticed) - len(survivors)
        print(f"{dotted}: {total - len(survivors)} of {total} noticed ({share:.1%}); {named} more change nothing")
        for mutant in survivors:
            print(f"  {mutant.name}{' (no test reaches it)' if mutant.status == _NO_TESTS else ''}")
            print("    " + mutant.change().replace("\n", "\n    "))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
