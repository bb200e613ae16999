"""What make bench makes of its figures: promises, tables, the chart, the text in docs/benchmark.md."""

from __future__ import annotations

import copy
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from typer.testing import CliRunner

import bench
from nudenet_tools import ROOT
from nudenet_tools.bench import chart, promises
from nudenet_tools.bench import report as bench_report

RECORDED = Path(__file__).parents[3] / "data" / "bench_report.json"  # of a short run on a busy machine
PAGE = """# Title
before
<!-- bench:begin -->
old figures
<!-- bench:end -->
between
<!-- sizing:begin --><!-- sizing:end -->
after
"""


@pytest.fixture
def report() -> dict:
    return bench_report.read(RECORDED)


@pytest.fixture
def gpu_report() -> dict:
    load = {"level": 1, "throughput": 250.0, "p50": 3.9, "p95": 4, "p99": 5, "failures": 0, "core_ms": {"triton": 3.0}}
    full = load | {"level": 64, "throughput": 6000.0, "p50": 11.0}
    return {
        "machine": {"cpu": "Xeon", "cores": 16, "cpu_features": [], "gpu": "NVIDIA H100 80GB HBM3, driver 580"}
        | {"versions": {"onnxruntime-gpu": "1.31.1"}, "date": "2026-11-22"},
        "engine": [{"batch": 1, "infer_ms": 0.8, "replay_ms": 0.7}, {"batch": 8, "infer_ms": 1.4, "replay_ms": 1.0}],
        "ensemble": [{"decoder": "nvjpeg", "engine": "ORT", "loads": [load, full]}],
    }


def scaled(row: dict, factor: float) -> dict:
    """A round on a machine `factor` times as fast."""
    slower = copy.deepcopy(row)
    for load in [*slower["ensemble"], *slower["ceiling"], *slower["peers"].values(), slower["reference"]]:
        load["throughput"] *= factor
        for key in {"p50", "p95", "p99", "single_ms"} & set(load):
            load[key] /= factor
    return slower


def verdict(found: list, words: str) -> promises.Promise:
    (one,) = (each for each in found if words in each.name)
    return one


def run(*arguments: object, status: int = 0) -> str:
    result = CliRunner().invoke(bench.app, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.output
    return " ".join(result.output.split())


def test_a_drifting_machine_does_not_change_the_ratios(report):
    steady = promises.of_cpu(report)
    row = report["rounds"][0]
    report["rounds"] = [row, scaled(row, 0.4), scaled(row, 0.7)]
    drifting = promises.of_cpu(report)
    for words in ("in-process ceiling", "one picture in process", "NudeDetector.detect", "FastAPI", "client-side"):
        assert verdict(drifting, words).value == pytest.approx(verdict(steady, words).value)
    # Absolute figures are medians over rounds.
    assert promises.ceiling(report)["throughput"] == pytest.approx(
        0.7 * promises.ceiling({"rounds": [row]})["throughput"]
    )


def test_targets_are_judged_by_what_was_measured(report):
    row = report["rounds"][0]
    ceiling = row["ceiling"] = [{"throughput": 100.0, "core_ms": 20.0, "single_ms": 10.0}] * 2
    row["ensemble"][0].update(throughput=60.0, p50=13.5)
    row["ensemble"][1].update(throughput=85.0)
    row["reference"].update(throughput=84.0)
    for name, throughput in (
        ("NudeDetector.detect", 12.0),
        ("NudeDetector behind FastAPI", 17.0),
        ("client-side preprocessing", 84.0),
    ):
        row["peers"][name]["throughput"] = throughput
    row["int8"]["throughput"] = 92.4
    report["open_loop"].update(throughput=239.9, p99=67.1, failures=1)
    found = promises.of_cpu(report)
    expected = {
        "in-process ceiling": (0.85, True),
        "one picture in process": (1.35, True),
        "NudeDetector.detect": (7.0, True),
        "FastAPI": (84 / 17, False),
        "client-side": (1.0, False),  # level is not ahead
        "failures": (1, False),
        "answered": (239.9 / 240, True),
        "p99": (67.1, False),
        "INT8": (1.1, True),
    }
    for words, (value, reached) in expected.items():
        assert (verdict(found, words).value, verdict(found, words).reached) == (pytest.approx(value), reached), words
    ceiling[0]["throughput"] += 1
    assert not verdict(promises.of_cpu(report), "in-process ceiling").reached


def test_requests_of_several_pictures_have_a_promise_of_their_own(report):
    row = report["rounds"][0]
    row["ceiling"] = [{"throughput": 100.0, "core_ms": 20.0, "single_ms": 10.0}] * 2
    row["batched"] = {**row["ensemble"][0], "level": 3, "batch": 8, "throughput": 95.0}
    report["rounds"] = [row]
    found = verdict(promises.of_cpu(report), "3 requests of 8 pictures")
    assert (found.value, found.reached) == (pytest.approx(0.95), True)
    (table,) = [table for table in bench_report.tables(report) if table.title.startswith("720p JPEG to detections")]
    assert table.rows[-1][:2] == ("ensemble, 3 of 8 pictures", "95.0")


def test_an_open_loop_that_perf_analyzer_gave_up_is_not_reached(report):
    report["open_loop"] = {"level": 240, "seconds": 30.0, "error": "perf_analyzer ended with 99"}
    found = verdict(promises.of_cpu(report), "240 requests/s for 30 s")
    assert (found.reached, found.text) == (False, "none")
    assert not [table for table in bench_report.tables(report) if "Camera" in table.title]


def test_gpu_targets(gpu_report):
    def found() -> list[tuple]:
        return [(each.target, each.value, each.reached) for each in promises.of_gpu(gpu_report)]

    engine = ("<= 1.2", 1.4, False)
    assert found() == [(">= 8,000", 6000.0, False), ("<= 3.2 ms", 3.9, False), engine]  # nothing strict
    strict = {"strict": True, "loads": [load | {"throughput": load["throughput"] * 0.7} for load in loads(gpu_report)]}
    gpu_report["ensemble"].append(gpu_report["ensemble"][0] | strict)
    assert found()[:3] == [(">= 3,600", 4200.0, True), ("<= 5 ms", 3.9, True), (">= 8,000", 6000.0, False)]
    assert "strangers" not in promises.of_gpu(gpu_report)[0].name
    assert "strangers" in promises.of_gpu(gpu_report)[2].name
    for load in gpu_report["ensemble"][1]["loads"]:
        load["throughput"], load["p50"] = 3599.0, 5.1
    assert [reached for _, _, reached in found()[:2]] == [False, False]
    gpu_report["ensemble"].append(gpu_report["ensemble"][1] | {"decoder": "cpu", "loads": loads(gpu_report)})
    assert [reached for _, _, reached in found()[:4]] == [True, True, False, False], "each decoder for itself"
    assert "decoder cpu" in promises.of_gpu(gpu_report)[0].name


def loads(report: dict) -> list[dict]:
    return report["ensemble"][0]["loads"]


def test_the_account_adds_up(report):
    (table,) = (each for each in bench_report.tables(report) if each.title.startswith("Where the CPU time"))
    *processes, total, _ = [float(row[1]) for row in table.rows]
    assert len(processes) == 5
    assert total == pytest.approx(sum(processes), abs=0.06)


@pytest.mark.parametrize("parts", [["rounds"], ["open_loop"], ["sizes", "batches"], ["instances"], []])
def test_a_run_of_some_parts_has_their_tables_only(report, parts):
    some = {key: value for key, value in report.items() if key in ("machine", "engine", *parts)}
    titles = [table.title for table in bench_report.tables(some)]
    assert ("Growth with picture" in titles) == ("sizes" in parts)
    assert any("Memory" in title for title in titles) == ("instances" in parts)
    assert any("run instead" in title for title in titles) == ("rounds" in parts)


def test_every_table_is_whole_in_markdown(report, gpu_report):
    for table in [*bench_report.tables(report), *bench_report.gpu_tables(gpu_report)]:
        lines = [line for line in table.markdown().splitlines() if line.startswith("|")]
        assert len(lines) == 2 + len(table.rows)
        assert len({line.count("|") for line in lines}) == 1, table.title


@pytest.mark.parametrize(
    "cpu,expected",
    [
        ("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", "intel-xeon-platinum-8481c-2-cores"),
        ("AMD EPYC 9B14 Processor", "amd-epyc-9b14-2-cores"),
    ],
)
def test_results_are_named_by_machine(cpu, expected):
    assert bench_report.slug({"cpu": cpu, "cores": 2}) == expected


def test_the_page_is_rewritten_between_its_markers_only(report, gpu_report, tmp_path):
    file, gpu = tmp_path / "benchmark.md", tmp_path / "gpu.json"
    file.write_text(PAGE)
    gpu.write_text(json.dumps(gpu_report))
    assert "bench, sizing" in run("tables", RECORDED, "--gpu", gpu, "--file", file)
    text = file.read_text()
    outside = re.compile(r"(<!-- (\w+):begin -->).*?(<!-- \2:end -->)", re.DOTALL)
    assert outside.sub(r"\1\3", text) == outside.sub(r"\1\3", PAGE)
    assert "old figures" not in text
    assert "AMD EPYC, 2 cores" in text
    assert "| throughput to NudeDetector.detect | >= 7 | 14.0x | yes |" in text
    assert "| 240 requests/s for 1.5 s: p99 | <= 67 ms | 762 ms | no |" in text
    assert "81 pictures/s" not in text  # of another machine
    # 81.1 pictures/s: 70% of 81 is one stream of 30; 10 streams are 300 pictures/s, 6 servers, and a spare.
    mode = "decoder nvjpeg (overlooks damage: not for strangers' uploads)"
    assert f"40.5 pictures/s a CPU core, 6,000 pictures/s a GPU, {mode}." in text
    assert "| 2 CPU cores | 81 | 1 | 2 | 7 |" in text
    assert f"| H100 80GB HBM3 with 16 cores, {mode} | 6000 | 140 | 2 | 2 |" in text
    assert f"| pictures/s from 720p JPEG at concurrency 64, {mode} |" in text
    run("tables", RECORDED, "--gpu", gpu, "--file", file)
    assert file.read_text() == text
    run("tables", RECORDED, "--gpu", tmp_path / "none.json", "--file", file)
    assert "H100" not in file.read_text()


def test_figures_in_a_mode_that_security_forbids_say_so_in_their_line(gpu_report):
    assert promises.gpu_setting({"decoder": "nvjpeg", "strict": True}) == "decoder nvjpeg"
    assert promises.gpu_setting({"decoder": "nvjpeg", "mps": True, "strict": False}).endswith(
        "decoder nvjpeg with CUDA MPS (overlooks damage: not for strangers' uploads)"
    )
    assert "strangers" in promises.gpu_setting({"decoder": "nvjpeg"})  # of a time when it could not be strict
    committed = json.loads((ROOT / "bench" / "results" / "nvidia-h100.json").read_text())
    assert all(ensemble["strict"] for ensemble in committed["ensemble"])


def test_the_chart_is_shown_where_it_is(report, tmp_path):
    (tmp_path / "results").mkdir()
    for name in ("a.json", "b.json"):
        (tmp_path / "results" / name).write_text(RECORDED.read_text())
    chart.draw(report, tmp_path / "results" / "a.svg")
    chart.draw(report, tmp_path / "results" / "again.svg")
    drawn = (tmp_path / "results" / "a.svg").read_bytes()
    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    assert drawn == (tmp_path / "results" / "again.svg").read_bytes()
    for name, shown in (("a.json", "](results/a.svg)"), ("b.json", "")):
        file = tmp_path / "benchmark.md"
        file.write_text(PAGE)
        run("tables", tmp_path / "results" / name, "--file", file)
        assert (".svg" in file.read_text()) == bool(shown)
        assert shown in file.read_text()


@pytest.mark.parametrize(
    "content,message",
    [
        ("{", "cannot read"),
        ("[]", "not a report"),
        (
            '{"machine": {"cpu": "x", "cores": 2, "gpu": null, "cpu_features": [], "versions": {}, "date": "d"}}',
            "whole run",
        ),
    ],
)
def test_the_page_stays_as_it_was_when_the_report_is_no_good(tmp_path, content, message):
    file, bad = tmp_path / "benchmark.md", tmp_path / "bad.json"
    file.write_text(PAGE)
    bad.write_text(content)
    assert message in run("tables", bad, "--file", file, status=1)
    assert file.read_text() == PAGE


def test_a_page_without_markers_is_said_so(tmp_path):
    file = tmp_path / "benchmark.md"
    file.write_text("# Title\n<!-- bench:end -->\n<!-- bench:begin -->\n")
    assert "has neither" in run("tables", RECORDED, "--file", file, status=1)


@pytest.mark.parametrize("arguments,stands", [((), True), (("--quick",), False), (("--only", "open"), False)])
def test_only_a_whole_run_stands_among_the_results(report, tmp_path, monkeypatch, arguments, stands):
    class Measured:
        def __init__(self, *_: object) -> None:
            pass

        def run(self) -> dict:
            return report

    monkeypatch.setattr(bench, "Bench", Measured)
    monkeypatch.setattr(bench_report, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    monkeypatch.setattr(bench.signal, "signal", lambda *_: None)
    run("run", *arguments)
    assert (tmp_path / "results" / "amd-epyc-2-cores.json").is_file() == stands
    assert (tmp_path / "out" / "amd-epyc-2-cores.json").is_file() != stands


def test_unknown_parts_are_refused():
    assert "ensemble,open,peers,int8,growth" in run("run", "--only", "everything", status=2)


def test_the_mix_is_compared_with_its_shares_one_after_the_other(report):
    loads = {"16:9": 200.0, "9:16": 100.0, "1:1": 50.0, "4:3": 1.0}
    row = {
        name: {"level": 24, "throughput": value, "p50": 1.0, "p95": 1.0, "p99": 1.0, "failures": 0}
        | {"core_ms": {"trt": 7.0}, "canvas_batch": {"180x320": 6.0}}
        for name, value in {**loads, promises.MIXED: 126.0}.items()
    }
    report["rounds"] = [one | {"aspects": row} for one in report["rounds"]]
    # 0.7/200 + 0.25/100 + 0.05/50 = 0.007 s a picture
    found = verdict(promises.of_cpu(report), "single aspects")
    assert found.value == pytest.approx(126 * 0.007)
    assert not found.reached
    (table,) = (table for table in bench_report.tables(report) if table.title.startswith("Aspects"))
    assert table.rows[-1][0] == promises.MIXED
    assert table.rows[-1][-1] == "180x320: 6.00"
