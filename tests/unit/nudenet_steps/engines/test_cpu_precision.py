"""`cpu_precision.py`: what `auto` is, from given records, times and CPUs."""

from __future__ import annotations

from pathlib import Path

import pytest

from nudenet_steps.engines import cpu_precision
from nudenet_steps.engines.cpu_precision import Cpu, decide

ZEN4 = Cpu("AMD EPYC 9R14", frozenset({"avx2", "avx512_vnni", "avx512_bf16"}))
AMX = Cpu("Intel Xeon 8488C", frozenset({"avx512_vnni", "amx_bf16", "amx_int8", "amx_tile"}))
OLD = Cpu("Intel Xeon E5-2680", frozenset({"avx2"}))


@pytest.fixture
def graph(tmp_path) -> Path:
    path = tmp_path / cpu_precision.INT8_GRAPH
    path.write_bytes(b"a graph")
    return path


@pytest.mark.parametrize(
    ("times", "cpu", "expected"),
    [
        ({"INT8": 4.9, "BF16": 6.5}, AMX, "INT8"),  # what was measured outweighs the flags
        ({"INT8": 6.9, "BF16": 6.0}, ZEN4, "BF16"),
        ({"INT8": 5.0, "BF16": 5.1}, ZEN4, "BF16"),  # 2 % are no reason to be less accurate
        ({"INT8": 4.9, "FP32": 9.0}, AMX, "BF16"),  # of another precision: as if not measured
        (None, ZEN4, "INT8"),
        (None, AMX, "BF16"),
        (None, OLD, "BF16"),
    ],
)
def test_the_fastest_wins(times, cpu, expected):
    assert decide("", "BF16", times, cpu).precision == expected


def test_what_does_not_keep_the_goal_is_never_chosen():
    choice = decide("it finds too little", "BF16", {"INT8": 1.0, "BF16": 9.0}, ZEN4)
    assert choice == ("BF16", "it finds too little")


def test_the_reason_has_the_times_or_the_instructions():
    assert decide("", "BF16", {"INT8": 4.9, "BF16": 6.5}, ZEN4).reason == (
        "INT8 4.90 ms a picture, BF16 6.50, measured here"
    )
    assert decide("", "BF16", None, AMX).reason == "this CPU has AMX; not measured, make tune does"
    assert decide("", "BF16", None, OLD).reason == "this CPU has no VNNI; not measured, make tune does"
    assert decide("", "BF16", None, ZEN4).reason == "this CPU has VNNI and no AMX; not measured, make tune does"


def test_a_graph_needs_a_record_of_its_own_that_keeps_the_goal(graph):
    folder = graph.parent
    assert "no record" in cpu_precision.int8_fault(folder)
    cpu_precision.write_record(graph, f1=0.949, goal=0.95, detections=213, pictures=486)
    assert cpu_precision.int8_fault(folder) == "model.int8.onnx has F1 0.949 against FP32, the goal is 0.95"
    cpu_precision.write_record(graph, f1=0.97, goal=0.95, detections=99, pictures=486)
    assert "rests on 99 detections" in cpu_precision.int8_fault(folder)
    cpu_precision.write_record(graph, f1=0.95, goal=0.95, detections=213, pictures=486)
    assert cpu_precision.int8_fault(folder) == ""
    graph.write_bytes(b"calibrated anew")
    assert "of another graph" in cpu_precision.int8_fault(folder)
    graph.unlink()
    assert cpu_precision.int8_fault(folder) == "there is no model.int8.onnx"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"sha256": "a", "f1": "b", "goal": 1, "detections": 200}'])
def test_a_record_that_cannot_be_read_counts_as_none(graph, content):
    graph.with_name(f"{graph.name}.json").write_text(content)
    assert "cannot be read" in cpu_precision.int8_fault(graph.parent)


def test_times_hold_for_one_cpu_and_one_graph(graph):
    key = cpu_precision.times_key(graph, ZEN4)
    assert cpu_precision.read_times(graph, key) is None
    cpu_precision.write_times(graph, key, {"INT8": 4.94444, "BF16": 6.5})
    assert cpu_precision.read_times(graph, key) == {"INT8": 4.944, "BF16": 6.5}
    assert cpu_precision.times_key(graph, Cpu(ZEN4.model, AMX.flags)) != key, "another CPU under the same name"
    other = cpu_precision.times_key(graph, AMX)
    assert other != key
    cpu_precision.write_times(graph, other, {"INT8": 7.0, "BF16": 6.0})
    assert cpu_precision.read_times(graph, key) == {"INT8": 4.944, "BF16": 6.5}, "what was known of another CPU"
    graph.write_bytes(b"calibrated anew")
    assert cpu_precision.times_key(graph, ZEN4) != key


@pytest.mark.parametrize("content", ["", "[]", '{"key": [1]}', '{"key": {"INT8": "fast"}}'])
def test_unusable_times_are_replaced(graph, content):
    graph.with_name(f"{graph.name}.times.json").write_text(content)
    assert cpu_precision.read_times(graph, "key") is None
    cpu_precision.write_times(graph, "key", {"INT8": 1.0})
    assert cpu_precision.read_times(graph, "key") == {"INT8": 1.0}


def test_choose_reads_record_and_times(graph):
    cpu_precision.write_record(graph, f1=0.97, goal=0.95, detections=213, pictures=486)
    for times, expected in (({"INT8": 4.0, "FP32": 9.0}, "INT8"), ({"INT8": 9.0, "FP32": 4.0}, "FP32")):
        cpu_precision.write_times(graph, cpu_precision.times_key(graph), times)
        choice = cpu_precision.choose(graph.parent, bf16=False)
        assert choice.precision == expected
        assert "measured here" in choice.reason


def test_the_cpu_is_read_from_linux(tmp_path):
    info = tmp_path / "cpuinfo"
    first = "processor\t: 0\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: A CPU\nflags\t\t: fpu avx_vnni\n"
    info.write_text(f"{first}\nprocessor\t: 1\nflags\t: amx_tile\n")
    assert cpu_precision.read_cpu(info) == Cpu("A CPU, cpu family 26, model 2", frozenset({"fpu", "avx_vnni"}))
    assert cpu_precision.read_cpu(info).int8_is_faster
    assert cpu_precision.read_cpu(tmp_path / "missing") == Cpu("", frozenset())
