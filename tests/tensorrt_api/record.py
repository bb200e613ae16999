"""Record what of TensorRT's bindings the converter uses, of the oldest and the newest version, as JSON.

TensorRT for RTX shows whether calls work; it cannot show how TensorRT 10 and 11 differ. Renew the recording (needs the
package index, no GPU, no compiler): make tensorrt-api
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
RECORDING = HERE / "recording.json"
BINDINGS = {"10.3.0": "tensorrt-cu12-bindings", "11.4.0.106": "tensorrt-cu13-bindings"}  # oldest supported, newest
# Class -> members that the converter uses, as the test of its calls finds them.
USED = {
    "Builder": ("__init__", "build_serialized_network", "create_builder_config", "create_network",
                "create_optimization_profile"),
    "BuilderFlag": ("TF32", "FP16"),  # FP16: not used, removed in 11; shows that the recording tells
    "DataType": ("FLOAT", "UINT8"),
    "IBuilderConfig": ("add_optimization_profile", "builder_optimization_level", "clear_flag", "create_timing_cache",
                       "get_timing_cache", "profiling_verbosity", "progress_monitor", "set_memory_pool_limit",
                       "set_timing_cache"),
    "ICudaEngine": ("create_execution_context", "get_tensor_dtype", "get_tensor_mode", "get_tensor_name",
                    "get_tensor_profile_shape", "num_io_tensors", "num_optimization_profiles"),
    "IExecutionContext": ("execute_async_v3", "get_tensor_shape", "infer_shapes", "set_input_shape",
                          "set_optimization_profile_async", "set_tensor_address"),
    "ILogger": ("__init__", "Severity"),
    "INetworkDefinition": ("get_input", "get_output", "num_inputs", "num_outputs"),
    "IOptimizationProfile": ("set_shape",),
    "IProgressMonitor": ("__init__",),
    "ITensor": ("name", "shape"),
    "ITimingCache": ("serialize",),
    "MemoryPoolType": ("WORKSPACE",),
    "NetworkDefinitionCreationFlag": ("STRONGLY_TYPED",),
    "OnnxParser": ("__init__", "get_error", "num_errors", "parse_from_file"),
    "ParserError": ("desc", "node", "node_name", "node_operator"),
    "ProfilingVerbosity": ("DETAILED",),
    "Runtime": ("__init__", "deserialize_cuda_engine"),
    "TensorIOMode": ("INPUT",),
}  # fmt: skip


def signatures(doc: str | None, name: str) -> list[str]:
    """The signature lines of a pybind11 docstring, one for each overload, without module prefixes."""
    lines = (doc or "").splitlines()
    found = [re.sub(r"^\d+\. ", "", line.strip()) for line in lines]
    found = [line for line in found if re.match(rf"{re.escape(name)}\(.*\) -> ", line)]
    if len(found) > 1:  # the first line is the generic one, the overloads follow
        found = [line for line in found if "*args, **kwargs" not in line]
    return [re.sub(r"tensorrt(_bindings)?\.(tensorrt\.)?", "", line) for line in dict.fromkeys(found)]


def describe(module: Any) -> dict[str, str]:
    """``Class.member`` -> signatures of a method, a line each, or what else it is; without those that are not there."""
    found: dict[str, str] = {}
    for class_name, members in USED.items():
        cls = getattr(module, class_name)
        for name in members:
            member = inspect.getattr_static(cls, name, None)
            if isinstance(member, property):
                found[f"{class_name}.{name}"] = "read/write" if member.fset else "read-only"
            elif name in getattr(cls, "__members__", ()):
                found[f"{class_name}.{name}"] = "enumerator"
            elif member is not None:
                found[f"{class_name}.{name}"] = "\n".join(signatures(getattr(cls, name).__doc__, name)) or "value"
    return found


def record(version: str) -> dict[str, str]:
    """Fetch the bindings of `version`, make them importable without TensorRT, and describe them."""
    with tempfile.TemporaryDirectory() as folder:
        fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        requirement = f"{BINDINGS[version]}=={version}"
        subprocess.run(
            [*fetch, "--only-binary=:all:", "--dest", folder, requirement], check=True, stderr=subprocess.PIPE
        )
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        loosen(Path(folder) / "tensorrt_bindings" / "tensorrt.so")
        program = (
            "import json, tensorrt_bindings as trt; from tensorrt_api.record import describe; "
            "print(json.dumps(describe(trt)))"
        )
        environment = {"PYTHONPATH": f"{HERE.parent}:{folder}"}  # two versions do not fit into one process
        output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, env=environment)
        return json.loads(output.stdout)


def load() -> dict[str, dict[str, str]]:
    """The recording, by version."""
    return json.loads(RECORDING.read_text())


def main() -> None:
    """Renew the recording."""
    RECORDING.write_text(
        json.dumps({version: record(version) for version in BINDINGS}, sort_keys=True, indent=1) + "\n"
    )
    print(RECORDING)


if __name__ == "__main__":
    main()
