"""A report as tables, for the terminal and for Markdown, as a JSON file, and inside docs/benchmark.md."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from nudenet_steps.files import write_whole
from nudenet_tools import ROOT
from nudenet_tools.bench import promises, sizing
from nudenet_tools.bench.promises import Promise, number
from nudenet_tools.bench.table import Table

RESULTS = ROOT / "bench" / "results"
GPU_RESULT = RESULTS / "nvidia-h100.json"
PROCESSES = {
    "triton": "tritonserver: gRPC, scheduling, copies",
    "preprocess": "nudenet_preprocess: decode",
    "trt": "nudenet_trt: engine",
    "postprocess": "nudenet_postprocess: NMS",
    "load generator": "perf_analyzer",
}
STREAMS = (1, 10, 30, 100)


class ReportError(ValueError):
    """A file is not what it should be; the message names it."""


def slug(machine: dict) -> str:
    """A file name for results of this machine, e.g. ``intel-xeon-processor-2-cores``."""
    name = re.sub(r"\((r|tm)\)|@.*|\b(cpu|processor)\b", " ", machine["cpu"].lower())
    return "-".join([*re.findall(r"[a-z0-9]+", name), str(machine["cores"]), "cores"])


def write(report: dict, path: Path) -> None:
    """As JSON, with the promises, whole or not at all."""
    found = [
        {"name": v.name, "target": v.target, "value": v.value, "reached": v.reached} for v in promises.of_cpu(report)
    ]
    write_whole(path, f"{json.dumps(report | {'promises': found}, indent=1)}\n".encode())


def read(path: Path) -> dict:
    """A report.

    Raises:
        ReportError: missing, not JSON, or not a report.
    """
    try:
        report = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ReportError(f"cannot read {path}: {error}") from error
    if not isinstance(report, dict) or "machine" not in report:
        raise ReportError(f"{path} is not a report of make bench")
    return report


def require_whole(report: dict) -> None:
    """docs/benchmark.md and the sizing need every part.

    Raises:
        ReportError: names what is missing.
    """
    first = (report.get("rounds") or [{}])[0]
    wanted = {"engine": report, "open_loop": report, "sizes": report, "batches": report, "instances": report}
    wanted |= {"ceiling": first, "ensemble": first, "reference": first, "peers": first, "int8": first}
    missing = [name for name, where in wanted.items() if name not in where]
    if missing:
        raise ReportError(f"not of a whole run: it lacks {', '.join(missing)}; run make bench without --only")


def headline(report: dict) -> str:
    """What it was measured on and with, in one line."""
    machine = report["machine"]
    features = f" ({', '.join(machine['cpu_features'])})" if machine["cpu_features"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    on = [f"{machine['gpu']};"] if machine["gpu"] else []
    return " ".join([*on, f"{machine['cpu']}, {machine['cores']} cores{features}; {versions}; {machine['date']}"])


def promise_table(found: Sequence[Promise], title: str) -> Table:
    """Targets, what was measured for each, and whether it was reached."""
    rows = [(v.name, v.target, v.text, "yes" if v.reached else "no") for v in found]
    return Table(title, ("figure", "target", "measured", "reached"), rows)


def tables(report: dict) -> list[Table]:
    """Everything that `report` holds, the promises first."""
    found: list[Table] = []
    judged = promises.of_cpu(report)
    if judged:
        found.append(promise_table(judged, "Targets (ratios are medians of rounds, each of figures side by side)"))
    first = (report.get("rounds") or [{}])[0]
    if "ensemble" in first:
        found += [_level_table(report), _account_table(report)]
    if "peers" in first:
        found.append(_peer_table(report))
    if "open_loop" in report and "error" not in report["open_loop"]:
        found += _open_tables(report["open_loop"])
    if "aspects" in first:
        found.append(_aspect_table(report))
    for key, column in (("sizes", "picture"), ("batches", "pictures a request"), ("instances", "detector instances")):
        if key in report:
            found.append(_growth_table(report[key], key, column))
    if "instances" in report:
        found.append(_memory_table(report["instances"]))
    return found


def _level_table(report: dict) -> Table:
    ceiling = promises.ceiling(report)
    rows: list[tuple[str, ...]] = [
        (
            "in process, no server",
            number(ceiling["throughput"]),
            number(ceiling["single_ms"]),
            "",
            "",
            number(ceiling["core_ms"]),
            "",
        )
    ]
    loads = [(f"ensemble, {load['level']:g} in flight", load) for load in promises.levels(report)]
    if "batched" in report["rounds"][0]:
        batched = [row["batched"] for row in report["rounds"]]
        name = f"ensemble, {batched[0]['level']:g} of {batched[0]['batch']} pictures"
        loads.append((name, promises.median_load(batched)))
    for name, load in loads:
        latencies = [number(load[key]) for key in ("p50", "p95", "p99")]
        rows.append((name, number(load["throughput"]), *latencies, number(load["core_ms"]), str(load["failures"])))
    columns = ("closed loop", "pictures/s", "p50 ms", "p95 ms", "p99 ms", "core-ms a picture", "failed")
    return Table(f"720p JPEG to detections, {report['engine']}, load generator on the same cores", columns, rows)


def _account_table(report: dict) -> Table:
    spent = promises.account(report)
    rows = [(PROCESSES.get(name, name), number(value)) for name, value in spent.items()]
    rows.append(("together", number(sum(spent.values()))))
    rows.append(("in process, no server", number(promises.ceiling(report)["core_ms"])))
    title = f"Where the CPU time goes at concurrency {promises.best_level(report)}"
    return Table(title, ("process", "core-ms a picture"), rows)


def _peer_table(report: dict) -> Table:
    rows: list[tuple[str, ...]] = []
    for name, peer in promises.peers(report).items():
        client = number(peer["client_core_ms"]) if peer["client_core_ms"] else ""
        rows.append(
            (
                name,
                f"{peer['concurrency']:g}",
                number(peer["throughput"]),
                number(peer["p50"]),
                number(peer["p99"]),
                number(peer["core_ms"]),
                client,
                f"{number(peer['ratio'])}x",
            )
        )
    if "int8" in report["rounds"][0]:
        loads = [row["int8"] for row in report["rounds"]]
        load = promises.median_load(loads)
        ratio = 1 / promises.int8_ratio(report)
        figures = [number(load[key]) for key in ("throughput", "p50", "p99", "core_ms")]
        rows.append(("this ensemble on the INT8 engine", f"{load['level']:g}", *figures, "", f"{number(ratio)}x"))
    columns = ("instead", "in flight", "pictures/s", "p50 ms", "p99 ms", "core-ms", "client's", "ensemble to it")
    return Table("What one would run instead, same pictures, same cores", columns, rows)


def _open_tables(load: dict) -> list[Table]:
    figures = [number(load[key]) for key in ("throughput", "p50", "p95", "p99")]
    name = f"{load['level']:g}/s for {load['seconds']:g} s"
    columns = ("open loop", "answered/s", "p50 ms", "p95 ms", "p99 ms", "failed")
    steps = [
        (
            f"nudenet_{step}",
            number(load["mean_batch"][step]),
            *(number(parts[key]) for key in ("queue", "compute_input", "compute_infer", "compute_output")),
        )
        for step, parts in load["step_ms"].items()
    ]
    return [
        Table(
            "Camera streams: requests sent on time whatever the answers do",
            columns,
            [(name, *figures, str(load["failures"]))],
        ),
        Table(
            f"Steps at {load['level']:g}/s, ms a request",
            ("step", "mean batch", "queue", "input", "infer", "output"),
            steps,
        ),
    ]


def _aspect_table(report: dict) -> Table:
    rows = []
    for name in report["rounds"][0]["aspects"]:
        loads = [row["aspects"][name] for row in report["rounds"]]
        load = promises.median_load(loads)
        batches = {canvas for each in loads for canvas in each["canvas_batch"]}
        means = {
            canvas: statistics.median(each["canvas_batch"][canvas] for each in loads if canvas in each["canvas_batch"])
            for canvas in sorted(batches)
        }
        figures = [number(load[key]) for key in ("throughput", "p50", "p99", "core_ms")]
        described = ", ".join(f"{canvas}: {number(mean)}" for canvas, mean in means.items())
        rows.append((name, f"{load['level']:g}", *figures, described))
    columns = ("pictures", "in flight", "pictures/s", "p50 ms", "p99 ms", "core-ms", "mean batch by canvas")
    return Table("Aspects, 0.92 megapixels each", columns, rows)


def _growth_table(loads: Sequence[dict], key: str, column: str) -> Table:
    name = {"sizes": "size", "batches": "batch", "instances": "instances"}[key]
    rows = []
    for load in loads:
        what = str(load[name])
        what += f", {load['picture_bytes'] / 1e3:.0f} KB" if key == "sizes" else ""
        what += f" of {load['threads']} threads" if key == "instances" else ""
        cpu = number(sum(load["core_ms"].values()))
        rows.append((what, f"{load['level']:g}", *(number(load[k]) for k in ("throughput", "p50", "p99")), cpu))
    columns = (column, "in flight", "pictures/s", "p50 ms", "p99 ms", "core-ms a picture")
    return Table(f"Growth with {column}", columns, rows)


def _memory_table(loads: Sequence[dict]) -> Table:
    names = list(loads[0]["memory_mb"])
    rows = [(str(load["instances"]), *(number(load["memory_mb"][name]) for name in names)) for load in loads]
    columns = ("detector instances", *(name if name in ("triton", "/dev/shm") else f"one {name}" for name in names))
    return Table("Memory, MB (resident, shared pages counted in each process; /dev/shm of all together)", columns, rows)


def gpu_ensemble_table(ensemble: dict) -> Table:
    """One ensemble of a report of ``bench.py gpu``."""
    single = [(f"{load['level']:g}", load) for load in ensemble["loads"]]
    batched = [(f"{load['level']:g} of 8 pictures", load) for load in ensemble.get("batched_loads", [])]
    rows = [
        (
            name,
            *(number(load[key]) for key in ("throughput", "p50", "p95", "p99")),
            number(sum(load["core_ms"].values())),
            str(load["failures"]),
        )
        for name, load in single + batched
    ]
    columns = ("requests in flight", "pictures/s", "p50 ms", "p95 ms", "p99 ms", "core-ms a picture", "failed")
    return Table(f"720p JPEG to detections, {promises.gpu_setting(ensemble)}, {ensemble['engine']}", columns, rows)


def gpu_tables(report: dict) -> list[Table]:
    """The tables of a report of ``bench.py gpu``."""
    ensembles = [gpu_ensemble_table(ensemble) for ensemble in report["ensemble"]]
    return [promise_table(promises.of_gpu(report), "Targets for one H100"), *ensembles]


def show(report: dict, console: Console) -> None:
    """Print all tables."""
    console.print(headline(report))
    for table in tables(report):
        console.print(table.rich())


def capacities(report: dict, gpu_report: dict | None) -> list[sizing.Machine]:
    """Most pictures a second of one server, by machine."""
    machine = report["machine"]
    best = max(load["throughput"] for load in promises.levels(report))
    found = [sizing.Machine(f"{machine['cores']} CPU cores", round(best))]
    if gpu_report:
        gpu = gpu_report["machine"]["gpu"].split(",")[0].removeprefix("NVIDIA ")
        ensemble, load = promises.best_gpu(gpu_report)
        name = f"{gpu} with {gpu_report['machine']['cores']} cores, {promises.gpu_setting(ensemble)}"
        found.append(sizing.Machine(name, round(load["throughput"])))
    return found


def sizing_text(report: dict, gpu_report: dict | None) -> str:
    """Markdown: frames a second per core and per GPU, and servers for a number of streams."""
    found = capacities(report, gpu_report)
    cores = report["machine"]["cores"]
    sentence = f"Measured: {number(found[0].capacity / cores)} pictures/s a CPU core"
    if gpu_report:
        setting = promises.gpu_setting(promises.best_gpu(gpu_report)[0])
        sentence += f", {number(found[1].capacity)} pictures/s a GPU, {setting}"
    table = sizing.table(found, list(STREAMS), 30, sizing.HEADROOM)
    note = (
        f"Servers for streams of 30 pictures/s, planned at {sizing.HEADROOM:.0%} of the capacity, one spare included."
    )
    return f"{sentence}. {note}\n\n{table}"


def bench_text(report: dict, gpu_report: dict | None, chart: str) -> str:
    """Markdown: machine, command, promises, tables, chart."""
    first, *rest = tables(report)
    parts = [f"`make bench` ({headline(report)}):", first.markdown()]
    parts += [f"![throughput against latency]({chart})"] if chart else []
    parts += [table.markdown() for table in rest]
    if gpu_report:
        parts.append(f"`tools/nudenet_tools/bench/gpu.sh` ({headline(gpu_report)}):")
        parts += [table.markdown() for table in gpu_tables(gpu_report)]
    return "\n\n".join(parts)


def rewrite(text: str, name: str, content: str) -> str | None:
    """`text` with `content` between the markers of `name`; None where it has no such markers."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        return None
    head, _, tail = text.partition(begin)
    return f"{head}{begin}\n{content}\n{end}{tail.partition(end)[2]}"
