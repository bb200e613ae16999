"""Which precision `auto` is on the CPU: the fastest here that keeps the accuracy goal.

INT8 is a candidate only with a record of its accuracy beside the graph (``build/accuracy.py --record-int8``). Whether
it is faster depends on the CPU: times measured here decide (``make serve``, ``make tune``), else the CPU's
instructions. No Triton import.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from nudenet_steps.files import sha256, write_whole

INT8_GRAPH = "model.int8.onnx"
LEAST_GAIN = 1.03  # a smaller one is within what two measurements differ by: the more accurate precision stays
ENOUGH_DETECTIONS = 100  # that a record of accuracy must rest on
_RECORD_COMMAND = "make accuracy ARGS=--record-int8"
_CPUINFO = Path("/proc/cpuinfo")


class Choice(NamedTuple):
    """A precision, and in words why."""

    precision: str
    reason: str


class Cpu(NamedTuple):
    """What the choice depends on."""

    model: str  # name, family and model number: clouds give several generations one name
    flags: frozenset[str]

    @property
    def int8_is_faster(self) -> bool:
        """Where nothing is measured: 1.05 to 1.15 times BF16 on EPYCs with VNNI, 0.86 to 0.93 on Xeons with AMX."""
        return self.has_vnni and not self.has_amx

    @property
    def has_vnni(self) -> bool:
        return any("vnni" in flag for flag in self.flags)

    @property
    def has_amx(self) -> bool:
        return any(flag.startswith("amx") for flag in self.flags)


def read_cpu(cpuinfo: Path = _CPUINFO) -> Cpu:
    """This machine's CPU; an empty model and no flags where Linux does not say."""
    try:
        lines = dict(line.split(":", 1) for line in cpuinfo.read_text().split("\n\n")[0].splitlines() if ":" in line)
    except OSError:
        return Cpu("", frozenset())
    values = {key.strip(): value.strip() for key, value in lines.items()}
    numbers = [f"{key} {values[key]}" for key in ("cpu family", "model") if key in values]
    return Cpu(", ".join([values.get("model name", ""), *numbers]), frozenset(values.get("flags", "").split()))


def write_record(graph: Path, f1: float, goal: float, detections: int, pictures: int) -> None:
    """Keep what `graph` was found to be worth, see `int8_fault`.

    Args:
        f1: against the FP32 graph, the worst of the thresholds.
        goal: least F1 that may be served unasked.
        detections: of the FP32 graph, what `f1` rests on.
        pictures: how many were looked at; none of those that the graph was calibrated on.
    """
    record = {"sha256": sha256(graph), "f1": f1, "goal": goal, "detections": detections, "pictures": pictures}
    write_whole(_record_path(graph), f"{json.dumps(record, indent=2)}\n".encode())


def int8_fault(folder: Path) -> str:
    """Why `auto` must not serve INT8 out of `folder`, in words; empty where it may."""
    graph = folder / INT8_GRAPH
    if not graph.is_file():
        return f"there is no {INT8_GRAPH}"
    try:
        record = json.loads(_record_path(graph).read_text("utf-8"))
        known, f1, goal, detections = (record[name] for name in ("sha256", "f1", "goal", "detections"))
        passed, enough = f1 >= goal, detections >= ENOUGH_DETECTIONS
    except FileNotFoundError:
        return f"{INT8_GRAPH} has no record of its accuracy ({_RECORD_COMMAND})"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"the record of {INT8_GRAPH} cannot be read ({error!r}; {_RECORD_COMMAND})"
    if known != sha256(graph):
        return f"the record beside {INT8_GRAPH} is of another graph ({_RECORD_COMMAND})"
    if not enough:
        return f"the record of {INT8_GRAPH} rests on {detections} detections, {ENOUGH_DETECTIONS} are needed"
    if not passed:
        return f"{INT8_GRAPH} has F1 {f1:.3f} against FP32, the goal is {goal:g}"
    return ""


def times_key(graph: Path, cpu: Cpu | None = None) -> str:
    """What a measurement holds for, whatever the number of threads: the CPU, OpenVINO and the INT8 graph."""
    import openvino

    cpu = cpu or read_cpu()
    used = sorted(flag for flag in cpu.flags if any(name in flag for name in ("vnni", "amx", "bf16")))
    return f"{cpu.model}, {' '.join(used)}, OpenVINO {openvino.__version__}, {sha256(graph)}"


def read_times(graph: Path, key: str) -> dict[str, float] | None:
    """Milliseconds a picture by precision, as kept under `key` beside `graph`; None where nothing usable is there."""
    try:
        times = json.loads(_times_path(graph).read_text("utf-8"))[key]
        return {str(name): float(value) for name, value in times.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_times(graph: Path, key: str, times: Mapping[str, float]) -> None:
    """Keep `times` under `key`, and what is there under other keys.

    Raises:
        OSError: the folder cannot be written.
    """
    try:
        kept = dict(json.loads(_times_path(graph).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        kept = {}
    kept[key] = {name: round(value, 3) for name, value in times.items()}
    write_whole(_times_path(graph), f"{json.dumps(kept, indent=2)}\n".encode())


def decide(fault: str, otherwise: str, times: Mapping[str, float] | None, cpu: Cpu) -> Choice:
    """INT8 or `otherwise`.

    Args:
        fault: from `int8_fault`.
        otherwise: BF16 where the CPU has it, else FP32.
        times: milliseconds a picture by precision, measured here; None where they are not known.
        cpu: this one.
    """
    if fault:
        return Choice(otherwise, fault)
    if times and {"INT8", otherwise} <= times.keys():
        faster = times[otherwise] >= LEAST_GAIN * times["INT8"]
        figures = f"INT8 {times['INT8']:.2f} ms a picture, {otherwise} {times[otherwise]:.2f}, measured here"
        return Choice("INT8" if faster else otherwise, figures)
    chosen = "INT8" if cpu.int8_is_faster else otherwise
    has = "AMX" if cpu.has_amx else "VNNI and no AMX" if cpu.has_vnni else "no VNNI"
    return Choice(chosen, f"this CPU has {has}; not measured, make tune does")


def choose(folder: Path, bf16: bool) -> Choice:
    """What `auto` is for the graphs in `folder`; measures nothing.

    Args:
        folder: the detector's version folder.
        bf16: whether the CPU has BF16 instructions.
    """
    otherwise, fault, cpu = "BF16" if bf16 else "FP32", int8_fault(folder), read_cpu()
    graph = folder / INT8_GRAPH
    return decide(fault, otherwise, None if fault else read_times(graph, times_key(graph, cpu)), cpu)


def can_keep_times(folder: Path) -> bool:
    """Whether a measurement would be kept."""
    return os.access(folder, os.W_OK)


def _record_path(graph: Path) -> Path:
    return graph.with_name(f"{graph.name}.json")


def _times_path(graph: Path) -> Path:
    return graph.with_name(f"{graph.name}.times.json")
