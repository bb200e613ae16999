"""The precision goals on a reduced set, and the figures they are made of."""

from __future__ import annotations

import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import accuracy
from nudenet_build.evaluation import report
from nudenet_build.evaluation.engines import OnnxRuntime
from nudenet_build.evaluation.matching import Agreement
from nudenet_build.evaluation.variants import variants
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
    assert against_fp32 == engines | {report.FULL_DECODE}
    assert against_package == engines | {report.FP32}


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
