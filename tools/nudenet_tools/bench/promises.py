"""Figures out of a report: medians over rounds, ratios of what stood side by side, and whether targets are reached."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

MIX = {"16:9": 0.7, "9:16": 0.25, "1:1": 0.05}  # shares of the mixed load
MIXED = "mix of 70 % 16:9, 25 % 9:16, 5 % 1:1"
NOT_STRICT = "overlooks damage: not for strangers' uploads"
FRAME_INTERVALS_MS = 67.0  # two, of 30 pictures a second


@dataclass(frozen=True)
class Promise:
    """One promise, what was measured for it, and whether it holds. `value` None: measured, but there is no figure."""

    name: str
    target: str
    value: float | None
    unit: str
    reached: bool

    @property
    def text(self) -> str:
        if self.value is None:
            return "none"
        # A ratio just under its target must not be rounded up to it.
        is_small_ratio = self.unit == "x" and self.value < 10
        return f"{self.value:.3f}x" if is_small_ratio else f"{number(self.value)}{self.unit}"


def number(value: float) -> str:
    """Three significant digits, and no fewer than stand before the point; counts as they are."""
    if isinstance(value, int):
        return f"{value:,}"
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def best_level(report: dict) -> int:
    """The concurrency with the highest throughput, by the median over rounds."""
    return int(max(levels(report), key=lambda row: row["throughput"])["level"])


def levels(report: dict) -> list[dict]:
    """Medians over rounds at each concurrency: throughput, p50, p95, p99, core_ms (all processes), and failures."""
    rounds = [row["ensemble"] for row in report["rounds"]]
    return [median_load(list(loads)) for loads in zip(*rounds, strict=True)]


def median_load(loads: list[dict]) -> dict:
    """Medians of loads at the same level."""
    found = {key: statistics.median(load[key] for load in loads) for key in ("throughput", "p50", "p95", "p99")}
    core_ms = statistics.median(sum(load["core_ms"].values()) for load in loads)
    return {
        "level": loads[0]["level"],
        **found,
        "core_ms": core_ms,
        "failures": sum(load["failures"] for load in loads),
    }


def at_level(loads: Iterable[dict], level: float) -> dict:
    """The load at one concurrency."""
    return next(load for load in loads if load["level"] == level)


def ceiling(report: dict) -> dict[str, float]:
    """Medians over rounds of the in-process figures: throughput, core_ms, single_ms."""
    rounds = [_beside(row) for row in report["rounds"]]
    return {key: statistics.median(row[key] for row in rounds) for key in rounds[0]}


def _beside(row: dict) -> dict[str, float]:
    """The ceiling of one round: the mean of before and after the ensemble."""
    return {key: statistics.fmean(each[key] for each in row["ceiling"]) for key in row["ceiling"][0]}


def account(report: dict) -> dict[str, float]:
    """CPU ms a picture by process at the best concurrency, medians over rounds."""
    loads = [at_level(row["ensemble"], best_level(report)) for row in report["rounds"]]
    return {name: statistics.median(load["core_ms"][name] for load in loads) for name in loads[0]["core_ms"]}


def peers(report: dict) -> dict[str, dict]:
    """Medians over rounds by peer's name; ``ratio`` is the ensemble's throughput beside it to its own."""
    found = {}
    for name in report["rounds"][0]["peers"]:
        rows = [row["peers"][name] for row in report["rounds"]]
        peer = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        ratios = [row["reference"]["throughput"] / row["peers"][name]["throughput"] for row in report["rounds"]]
        found[name] = {**peer, "ratio": statistics.median(ratios)}
    return found


def int8_ratio(report: dict) -> float:
    """Throughput with the INT8 engine to that with the default one beside it."""
    return statistics.median(row["int8"]["throughput"] / row["reference"]["throughput"] for row in report["rounds"])


def mixed_ratio(report: dict) -> float:
    """Throughput of the mix to what its shares of pictures would take one canvas after the other."""

    def of_round(loads: dict[str, dict]) -> float:
        apart = 1 / sum(share / loads[name]["throughput"] for name, share in MIX.items())
        return loads[MIXED]["throughput"] / apart

    return statistics.median(of_round(row["aspects"]) for row in report["rounds"])


def of_cpu(report: dict) -> list[Promise]:
    """The promises for a CPU that the measured parts can answer."""
    found: list[Promise] = []
    first = (report.get("rounds") or [{}])[0]
    if "ensemble" in first:
        level = best_level(report)
        ratios, singles = [], []
        for row in report["rounds"]:
            beside = _beside(row)
            ratios.append(at_level(row["ensemble"], level)["throughput"] / beside["throughput"])
            singles.append(at_level(row["ensemble"], 1)["p50"] / beside["single_ms"])
        ratio, single = statistics.median(ratios), statistics.median(singles)
        name = f"throughput at concurrency {level} to the in-process ceiling"
        found.append(Promise(name, ">= 0.85", ratio, "x", ratio >= 0.85))
        if "batched" in first:
            load = first["batched"]
            ratio = statistics.median(
                row["batched"]["throughput"] / _beside(row)["throughput"] for row in report["rounds"]
            )
            name = f"the same, {load['level']:g} requests of {load['batch']} pictures in flight"
            found.append(Promise(name, ">= 0.95", ratio, "x", ratio >= 0.95))
        found.append(Promise("p50 at concurrency 1 to one picture in process", "<= 1.35", single, "x", single <= 1.35))
    if "peers" in first:
        by_name = peers(report)
        for name, least, target in (
            ("NudeDetector.detect", 7.0, ">= 7"),
            ("NudeDetector behind FastAPI", 5.0, ">= 5"),
            ("textbook ensemble", 2.0, ">= 2"),
            ("client-side preprocessing", 1.0, "> 1"),
        ):
            if name not in by_name:  # a report from before it was measured
                continue
            ratio = by_name[name]["ratio"]
            reached = ratio > least if target.startswith("> ") else ratio >= least
            found.append(Promise(f"throughput to {name}", target, ratio, "x", reached))
    if "aspects" in first:
        ratio = mixed_ratio(report)
        found.append(Promise(f"throughput of {MIXED} to single aspects", ">= 0.9", ratio, "x", ratio >= 0.9))
    if "open_loop" in report:
        found += _of_open_loop(report["open_loop"])
    if "int8" in first:
        ratio = int8_ratio(report)
        found.append(Promise(f"INT8 to {report['engine']}, end to end", ">= 1.1", ratio, "x", ratio >= 1.1))
    return found


def _of_open_loop(load: dict) -> list[Promise]:
    name = f"{load['level']:g} requests/s for {load['seconds']:g} s"
    if "error" in load:
        return [Promise(f"{name}: perf_analyzer gave up", "no failure", None, "", False)]
    share = load["throughput"] / load["level"]
    return [
        Promise(f"{name}: failures", "0", int(load["failures"]), "", load["failures"] == 0),
        Promise(f"{name}: answered a second to sent", ">= 0.99", share, "x", share >= 0.99),
        Promise(f"{name}: p99", "<= 67 ms", load["p99"], " ms", load["p99"] <= FRAME_INTERVALS_MS),
    ]


def gpu_setting(ensemble: dict) -> str:
    """What one ensemble of a report of ``bench.py gpu`` ran with, and whether SECURITY.md forbids it for strangers."""
    setting = f"decoder {ensemble['decoder']}" + (" with CUDA MPS" if ensemble.get("mps") else "")
    return setting + ("" if _is_strict(ensemble) else f" ({NOT_STRICT})")


def _is_strict(ensemble: dict) -> bool:
    """Whether damaged files were refused; early reports do not say, and the GPU's decoder could not then."""
    return ensemble.get("strict", ensemble["decoder"] == "cpu")


def best_gpu(report: dict) -> tuple[dict, dict]:
    """(ensemble, load) with the highest throughput of a report of ``bench.py gpu``."""
    return _best_load(report["ensemble"])


def _best_load(ensembles: Iterable[dict]) -> tuple[dict, dict]:
    pairs = [(ensemble, load) for ensemble in ensembles for load in ensemble["loads"]]
    return max(pairs, key=lambda pair: pair[1]["throughput"])


def of_gpu(report: dict) -> list[Promise]:
    """The promises for one H100 from a report of ``bench.py gpu``: what may serve strangers first."""
    on_cpu = [ensemble for ensemble in report["ensemble"] if ensemble["decoder"] == "cpu"]
    on_gpu = [ensemble for ensemble in report["ensemble"] if ensemble["decoder"] != "cpu" and _is_strict(ensemble)]
    engine = max(report["engine"], key=lambda row: row["batch"])
    ratio = engine["infer_ms"] / engine["replay_ms"]
    return [
        *(promise for strict in (on_cpu, on_gpu) if strict for promise in _of_gpu_loads(strict, 3600, 5)),
        *_of_gpu_loads(report["ensemble"], 8000, 3.2),
        Promise(f"engine at batch {engine['batch']} to its CUDA graph", "<= 1.2", ratio, "x", ratio <= 1.2),
    ]


def _of_gpu_loads(ensembles: list[dict], least: int, most_ms: float) -> list[Promise]:
    ensemble, load = _best_load(ensembles)
    quickest = min(ensembles, key=lambda each: at_level(each["loads"], 1)["p50"])
    rate, p50 = load["throughput"], at_level(quickest["loads"], 1)["p50"]
    name = f"pictures/s from 720p JPEG at concurrency {load['level']:g}, {gpu_setting(ensemble)}"
    return [
        Promise(name, f">= {least:,}", rate, "", rate >= least),
        Promise(f"p50 at concurrency 1, {gpu_setting(quickest)}", f"<= {most_ms:g} ms", p50, " ms", p50 <= most_ms),
    ]
