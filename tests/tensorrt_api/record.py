"""Record members and signatures of real TensorRT bindings as JSON, for the stand-in that tests build plans against.

Renew the recordings (needs the package index, no GPU, no compiler): make tensorrt-api
"""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from tensorrt_api.loosen import loosen

HERE = Path(__file__).resolve().parent
# Oldest supported, last of major 10 seen in an image, the pinned image's, newest.
BINDINGS = {
    "10.3.0": "tensorrt-cu12-bindings",
    "10.13.3.9": "tensorrt-cu13-bindings",
    "11.1.0.106": "tensorrt-cu13-bindings",
    "11.4.0.106": "tensorrt-cu13-bindings",
}
# The classes whose members are recorded. All other names of the module are recorded as names only.
CLASSES = (
    "Builder",
    "BuilderFlag",
    "DataType",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "IHostMemory",
    "ILogger",
    "INetworkDefinition",
    "IOptimizationProfile",
    "IProgressMonitor",
    "ITensor",
    "ITimingCache",
    "Logger",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "ParserError",
    "Runtime",
    "TensorIOMode",
)
CUDA_BINDINGS = ("12.9.10", "13.3.1")
CUDA_PATHFINDER = "1.9.0"  # what cuda-bindings imports
CUDA_ENUMS = ("cudaError_t", "cudaMemcpyKind")
INHERITED = frozenset(dir(object)) | {"__module__", "__members__", "__entries", "__enter__", "__exit__"}


def signatures(doc: str | None, name: str) -> list[str]:
    """The signature lines of a pybind11 docstring, one for each overload, without module prefixes."""
    lines = (doc or "").splitlines()
    found = [re.sub(r"^\d+\. ", "", line.strip()) for line in lines]
    found = [line for line in found if re.match(rf"{re.escape(name)}\(.*\) -> ", line)]
    if len(found) > 1:  # the first line is the generic one, the overloads follow
        found = [line for line in found if "*args, **kwargs" not in line]
    return [re.sub(r"tensorrt(_bindings)?\.(tensorrt\.)?", "", line) for line in dict.fromkeys(found)]


def describe(cls: type) -> dict[str, Any]:
    """Enumerators, methods with signatures, and properties of one class."""
    enumerators = {name: int(value) for name, value in getattr(cls, "__members__", {}).items()}
    methods, properties, values = {}, {}, []
    for name in sorted(set(dir(cls)) - INHERITED - set(enumerators) | {"__init__"}):
        if enumerators and name != "__init__":
            continue
        member = inspect.getattr_static(cls, name)
        if isinstance(member, property):
            properties[name] = "read/write" if member.fset else "read-only"
        elif callable(getattr(cls, name)) and not inspect.isclass(getattr(cls, name)):
            if found := signatures(getattr(cls, name).__doc__, name):
                methods[name] = found
        elif not name.startswith("_"):
            values.append(name)
    return {"enumerators": enumerators, "methods": methods, "properties": properties, "values": values}


def describe_module(module: Any) -> dict[str, Any]:
    """What a recording holds."""
    severity = module.ILogger.Severity
    return {
        "version": module.__version__,
        "names": sorted(name for name in vars(module) if not name.startswith("_")),
        "severities": {name: int(value) for name, value in severity.__members__.items()},
        "classes": {name: describe(getattr(module, name)) for name in CLASSES},
    }


def describe_cuda(module: Any) -> dict[str, Any]:
    """Parameter names of the CUDA runtime functions, and the enumerators that the runner may name."""
    functions = {}
    for name, member in vars(module).items():
        first_line = (getattr(member, "__doc__", None) or "").strip().split("\n")[0]
        match = re.fullmatch(rf"{re.escape(name)}\((.*)\)", first_line)
        if name.startswith("cuda") and match:
            parts = [part.strip() for part in match.group(1).split(",") if part.strip()]
            functions[name] = [part.split(":")[0].split("=")[0].split()[-1] for part in parts]
    enums = {name: {item.name: int(item) for item in getattr(module, name)} for name in CUDA_ENUMS}
    return {"functions": functions, "enums": enums}


def _fetch(requirement: str, folder: str) -> None:
    """Download one wheel and unpack it into `folder`."""
    wheels = f"{folder}/wheels-{requirement}"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--only-binary=:all:", "--dest", wheels, requirement),
        ],
        check=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    (wheel,) = Path(wheels).glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)


def _describe_in_process(folder: str, program: str) -> dict[str, Any]:
    """Run `program`, which prints JSON, with `folder` on the import path: two versions do not fit into one process."""
    environment = {"PYTHONPATH": f"{HERE.parent}:{folder}"}
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, env=environment)
    return json.loads(output.stdout)


def record(version: str) -> dict[str, Any]:
    """Fetch the TensorRT bindings of `version`, make them importable, and describe them."""
    with tempfile.TemporaryDirectory() as folder:
        _fetch(f"{BINDINGS[version]}=={version}", folder)
        loosen(Path(folder) / "tensorrt_bindings" / "tensorrt.so")
        return _describe_in_process(
            folder,
            "import json, tensorrt_bindings as trt; from tensorrt_api.record import describe_module; "
            "print(json.dumps(describe_module(trt)))",
        )


def record_cuda(version: str) -> dict[str, Any]:
    """Fetch cuda-bindings of `version` and describe its runtime module, which imports without a driver."""
    with tempfile.TemporaryDirectory() as folder:
        _fetch(f"cuda-bindings=={version}", folder)
        _fetch(f"cuda-pathfinder=={CUDA_PATHFINDER}", folder)
        return _describe_in_process(
            folder,
            "import json, cuda.bindings.runtime as runtime; from tensorrt_api.record import describe_cuda; "
            "print(json.dumps(describe_cuda(runtime)))",
        )


def path_for(version: str, package: str = "tensorrt") -> Path:
    """Where the recording of `version` lies."""
    return HERE / f"{package}-{version}.json"


def load(version: str, package: str = "tensorrt") -> dict[str, Any]:
    """A recording."""
    return json.loads(path_for(version, package).read_text())


def main() -> None:
    """Renew all recordings."""
    recordings = {path_for(version): record(version) for version in BINDINGS}
    recordings |= {path_for(version, "cuda"): record_cuda(version) for version in CUDA_BINDINGS}
    for path, recording in recordings.items():
        path.write_text(json.dumps(recording, sort_keys=True, indent=1) + "\n")
        print(path)


if __name__ == "__main__":
    main()
