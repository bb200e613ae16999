"""The precision goals on a reduced set, and the figures they are made of."""

from __future__ import annotations

import json

import numpy as np
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

import accuracy
from nudenet_build.evaluation import by_aspect, report, windows
from nudenet_build.evaluation.engines import OnnxRuntime
from nudenet_build.evaluation.matching import Agreement
from nudenet_build.evaluation.variants import decode_full, variants
from nudenet_steps.engines.openvino import has_bf16
from nudenet_steps.preprocess.canvas import LONGER_SIDE, SPECIFIED
from nudenet_steps.preprocess.letterbox import TO_UNIT


@pytest.fixture(scope="module")
def evaluation(onnx_path, data_folder, tmp_path_factory) -> accuracy.Evaluation:
    """Two portraits and 63 variants of each, INT8 calibrated on the other one."""
    folder = tmp_path_factory.mktemp("accuracy")
    images = [str(data_folder / name) for name in ("astronaut_720p.jpg", "hopper.jpg")]
    items = list(accuracy.pictures(images, 63, 0, 100))
    graph = onnx_path.with_name("model.dynamic.onnx")  # all canvases
    evaluation = accuracy.prepare(items, OnnxRuntime(graph), folder)
    accuracy.run_precisions(evaluation, graph, folder, None, None)
    assert len(evaluation.sources) == 128
    return evaluation


@pytest.fixture(scope="module")
def figures(evaluation) -> list[report.Figure]:
    """All comparisons."""
    return report.compare(evaluation.detections, accuracy.THRESHOLDS)


def figure(figures, tested: str, threshold: float, against: str = report.AGAINST_FP32) -> Agreement:
    return next(f.agreement for f in figures if (f.tested, f.threshold, f.against) == (tested, threshold, against))


@pytest.mark.parametrize("threshold", accuracy.THRESHOLDS)
@pytest.mark.parametrize(
    ("tested", "goal"),
    [(report.FP16, 0.99), (report.INT8_OPENVINO, 0.95), (report.INT8, 0.95), (report.INT8_FP16, 0.95)],
)
def test_goals_against_fp32(figures, tested, goal, threshold):
    agreement = figure(figures, tested, threshold)
    assert agreement.reference >= 40
    assert agreement.f1 >= goal
    assert agreement.mean_iou > 0.95


def test_every_reference_and_row_is_there(figures):
    engines = {report.FP16, report.INT8_OPENVINO, report.INT8, report.INT8_FP16} | (
        {report.BF16} if has_bf16() else set()
    )
    against_fp32 = {f.tested for f in figures if f.against == report.AGAINST_FP32}
    against_package = {f.tested for f in figures if f.against == report.AGAINST_NUDENET}
    assert against_fp32 == engines | {report.FULL_DECODE, report.ON_LARGEST}
    assert against_package == engines | {report.FP32, report.FULL_DECODE}
    assert {f.tested for f in figures if f.against == report.AGAINST_FULL_DECODE} == {report.FP32, report.NUDENET}


def test_agrees_with_the_package_on_wide_pictures(evaluation):
    wide = [i for i, aspect in enumerate(evaluation.aspects) if aspect in ("2.4:1", "16:9")]
    package, ours = ([evaluation.detections[name][i] for i in wide] for name in (report.NUDENET, report.FP32))
    agreement = report.agree(package, ours, 0.5)
    assert agreement.reference >= 15
    assert agreement.f1 > 0.85
    assert agreement.mean_iou > 0.9


def test_finds_what_the_package_is_sure_of_in_every_aspect(evaluation):
    sure = [rows[rows[:, 5] >= 0.5] for rows in evaluation.detections[report.NUDENET]]
    agreement = Agreement()
    for reference, found in zip(sure, evaluation.detections[report.FP32], strict=True):
        agreement.add(reference, found)
    assert len(set(evaluation.aspects)) >= 4
    assert agreement.reference >= 80
    assert agreement.matched / agreement.reference >= 0.97


def test_more_black_around_a_picture_changes_little(figures):
    agreement = figure(figures, report.ON_LARGEST, 0.25)
    assert agreement.reference >= 40
    assert agreement.f1 > 0.95
    assert agreement.mean_iou > 0.97


@pytest.mark.parametrize("size", [(540, 360), (1145, 1600), (320, 320)])
@pytest.mark.parametrize("aspect", by_aspect.ASPECTS)
def test_windows_lie_in_the_picture_and_have_the_aspect(size, aspect):
    found = windows.windows_of(size[0], size[1], by_aspect.ASPECTS[aspect])
    assert len(set(found)) == len(found) >= 3
    for window in found:
        assert min(window.x, window.y) >= 0
        assert window.x + window.width <= size[0]
        assert window.y + window.height <= size[1]
        assert max(window.width, window.height) >= windows.LEAST
        assert by_aspect.aspect_of(window.width, window.height) == aspect
    assert found[0].width == size[0] or found[0].height == size[1]  # the largest first


def test_a_window_is_cut_where_it_is_said(astronaut):
    pixels = decode_full(astronaut)
    first = windows.windows_of(pixels.shape[1], pixels.shape[0], by_aspect.ASPECTS["9:16"])[0]
    cut = decode_full(next(windows.cut(pixels, "9:16"))).astype(int)
    part = pixels[first.y : first.y + first.height, first.x : first.x + first.width]
    assert cut.shape == part.shape
    assert np.abs(cut - part).mean() < 5  # encoded once more


def test_one_source_gives_an_aspect_its_share_only(onnx_path, data_folder, tmp_path):
    graph = OnnxRuntime(onnx_path.with_name("model.dynamic.onnx"))
    items = list(accuracy.pictures([str(data_folder / "hopper.jpg")], None, 0, 1))[:60]
    few = accuracy.prepare(items, graph, tmp_path, package=False, source_share=2)
    found = few.detections[report.FULL_DECODE]
    for aspect in set(few.aspects):
        counts = [len(rows) for rows, one in zip(found, few.aspects, strict=True) if one == aspect]
        assert sum(counts[:-1]) < 2, aspect  # none is taken after the share is reached
    assert 0 < len(few.sources) < len(items)


def test_aspect_rows_say_what_they_rest_on():
    def rows(*confidences):
        return np.array([[20 * i, 0, 20 * i + 10, 10, 1, c] for i, c in enumerate(confidences)], np.float32).reshape(
            -1, 6
        )

    reference = [rows(0.9, 0.6, 0.3), rows(0.4), rows()]
    found = [rows(0.9, 0.3, 0.3), rows(0.2), rows(0.5)]
    sources, aspects = ["a", "b", "c"], ["1:1"] * 3
    (row,) = by_aspect.compare(report.AGAINST_NUDENET, report.FP32, reference, found, aspects, sources, 0.25)
    assert (row.sources, row.sources_with_detections, row.largest_share) == (3, 2, 0.75)
    assert (row.agreement.matched, row.agreement.missed, row.agreement.extra) == (3, 1, 1)
    assert (row.sure.matched, row.sure.reference) == (2, 2)  # found from 0.25 up
    (line,) = report.missed_aspect_goals([row])
    assert "1:1: 4 detections decide nothing, 150 are needed" in line
    many = by_aspect.compare(
        report.AGAINST_NUDENET, report.FP32, reference * 50, found * 50, aspects * 50, sources * 50, 0.25
    )
    missed = report.missed_aspect_goals(many)
    assert any("1:1: F1 0.75, goal 0.88" in line for line in missed)
    assert any("lower bound of F1" in line for line in missed)
    assert len(missed) == 2  # what the reference is sure of was found


def test_classes_without_evidence_are_named():
    console = Console(record=True, width=120)
    rows = np.array([[0, 0, 9, 9, 1, 0.5]], np.float32)
    by_aspect.print_classes([rows, rows], ["a", "a"], ["FEET", "FACE", "BELLY"], console)
    text = console.export_text()
    assert "none of: FEET, BELLY" in text
    assert "FACE" in text


def test_halves_share_no_source_picture():
    sources = ["a"] * 3 + ["b"] * 2 + ["c"] * 4
    evaluation = accuracy.Evaluation(np.zeros((9, 3, 1, 1)), [SPECIFIED] * 9, np.zeros((9, 4)), sources, {})
    first, second = evaluation.folds
    assert not set(sources[first]) & set(sources[second])
    assert len(sources[first]) + len(sources[second]) == 9
    with pytest.raises(accuracy.AccuracyError, match="two source pictures"):
        _ = accuracy.Evaluation(np.zeros((2, 3, 1, 1)), [SPECIFIED] * 2, np.zeros((2, 4)), ["a", "a"], {}).folds


def test_matching_counts():
    def rows(*boxes):
        return np.array(boxes, np.float32).reshape(-1, 6)

    agreement = Agreement()
    reference = rows([0, 0, 10, 10, 1, 0.9], [20, 0, 30, 10, 1, 0.8], [40, 0, 50, 10, 2, 0.7])
    tested = rows([0, 0, 10, 9, 1, 0.85], [20, 0, 30, 10, 3, 0.8], [60, 0, 70, 10, 2, 0.7])
    agreement.add(reference, tested)  # one match, one class changed, one box elsewhere
    agreement.add(rows(), rows())
    assert (agreement.matched, agreement.missed, agreement.extra) == (1, 2, 2)
    assert agreement.f1 == pytest.approx(1 / 3)
    assert agreement.mean_iou == pytest.approx(0.9)
    assert agreement.max_confidence_change == pytest.approx(0.05)


def test_one_box_matches_once():
    agreement = Agreement()
    box = np.array([[0, 0, 10, 10, 1, 0.9]], np.float32)
    agreement.add(box, np.concatenate([box, box]))
    assert (agreement.matched, agreement.missed, agreement.extra) == (1, 0, 1)


def test_threshold_applies_to_both_sides():
    sure, unsure = np.array([[0, 0, 10, 10, 1, 0.6]]), np.array([[0, 0, 10, 10, 1, 0.4]])
    assert report.agree([sure], [unsure], 0.25).matched == 1
    assert report.agree([sure], [unsure], 0.5).missed == 1


def test_missed_goal_is_named():
    poor = Agreement(matched=80, missed=20, extra=0)
    lines = report.missed_goals([report.Figure(report.AGAINST_FP32, report.FP16, 0.25, poor)])
    assert lines == [f"{report.FP16} from 0.25: F1 0.8889, goal 0.99"]


def test_variants_are_seeded_and_differ(astronaut):
    first = [data for _, data in variants(astronaut, "a", 6, seed=3)]
    assert first == [data for _, data in variants(astronaut, "a", 6, seed=3)]
    assert len(set(first)) == 6
    assert not set(first) & {data for _, data in variants(astronaut, "a", 6, seed=4)}
    assert not set(first) & {data for _, data in variants(astronaut, "b", 6, seed=3)}


def test_command_line_on_a_folder_of_ones_own(data_folder, tmp_path, onnx_path):
    for name in ("hopper.jpg", "cat.jpg"):
        (tmp_path / name).write_bytes((data_folder / name).read_bytes())
    app = typer.Typer()
    app.command()(accuracy.main)
    result = CliRunner().invoke(app, ["--images", str(tmp_path)])
    assert result.exit_code == 2
    assert "1 frames to calibrate on, 64 needed" in result.output
    figures_file = tmp_path / "figures.json"
    calibration = tmp_path / "calib_data.npy"
    frame = np.zeros((3, LONGER_SIDE, LONGER_SIDE), np.float32)
    frame[:, : SPECIFIED.height, : SPECIFIED.width] = (
        accuracy.Preprocessor((SPECIFIED,))((data_folder / "astronaut_720p.jpg").read_bytes())[0] * TO_UNIT
    )
    np.save(calibration, np.stack([frame] * 64))
    arguments = ["--images", str(tmp_path), "--calibration-data", str(calibration), "--json", str(figures_file)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code in (0, 1), result.output  # two pictures decide nothing
    assert "2 pictures: 2 sources" in result.output
    row = json.loads(figures_file.read_text())[0]
    assert {"against", "tested", "threshold", "matched", "missed", "extra", "f1", "mean_iou"} <= row.keys()
