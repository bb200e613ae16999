#!/usr/bin/env python3
"""What each precision costs in detections, against the FP32 graph and against the nudenet package.

Every picture goes through the serving preprocessing and, after each engine, the serving postprocessing. The bundled
pictures are cut into windows of every aspect; other pictures are taken as they are, or with seeded variants.
An INT8 graph is never judged on pictures it was calibrated on: the source pictures are cut into two halves,
and each half is judged with the graph calibrated on the other one.
"""

from __future__ import annotations

import json
import platform
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from nudenet_build.calibration.frames import Pictures, SourceError, evenly, open_source, shares
from nudenet_build.evaluation import by_aspect, report, windows
from nudenet_build.evaluation.engines import Engine, OnnxRuntime, nudenet_detector, openvino_engine
from nudenet_build.evaluation.variants import decode_full, variants
from nudenet_build.graph.export import DYNAMIC_OUTPUT, write_graph
from nudenet_build.graph.onnx_file import GraphError, load_detector
from nudenet_build.graph.precision import MIN_FRAMES, PrecisionError, load_calibration, to_fp16, to_int8
from nudenet_build.outputs import check_output
from nudenet_steps.engines import EngineError
from nudenet_steps.engines.cpu_precision import INT8_GRAPH, int8_fault, write_record
from nudenet_steps.engines.openvino import has_bf16
from nudenet_steps.pipeline import Preprocessor, labels
from nudenet_steps.postprocess import nms
from nudenet_steps.preprocess import jpeg
from nudenet_steps.preprocess.canvas import LARGEST, Canvas

BUNDLED = Path(__file__).resolve().parent.parent / "tests" / "data"
# A source picture gives no more windows of an aspect once the reference has detected this many in them. Of 8, 10, 12
# and 15 the least that leaves 150 detections in every aspect.
SOURCE_SHARE = 8
CALIBRATION_FRAMES = 600  # of the other half, evenly spread
THRESHOLDS = (0.25, 0.5)
BATCH = 8

Detections = list[np.ndarray]  # one [K,6] a picture: source pixels, class id, confidence


class AccuracyError(ValueError):
    """Nothing to measure on, or the measurement would not be sound; the message says what to do."""


@dataclass
class Evaluation:
    """Pictures and everything that was detected on them."""

    inputs: np.ndarray  # UINT8 [N,3,H,W] on the largest canvas, memory-mapped
    canvases: list[Canvas]  # the one that each is served on: the rest of its input is black
    geometry: np.ndarray  # FP32 [N,4], see nms.detect
    sources: list[str]  # the picture each one was made from
    detections: dict[str, Detections]  # by row name

    @property
    def folds(self) -> tuple[slice, slice]:
        """Two halves without a common source picture."""
        names = list(dict.fromkeys(self.sources))
        if len(names) < 2:
            raise AccuracyError(
                "INT8 needs two source pictures at least, to calibrate on one and judge on the other; "
                "add pictures or pass --calibration-data"
            )
        border = self.sources.index(names[(len(names) + 1) // 2])
        return slice(0, border), slice(border, len(self.sources))

    @property
    def aspects(self) -> list[str]:
        """Of each picture, see `by_aspect.ASPECTS`."""
        return [by_aspect.aspect_of(width, height) for width, height in self.geometry[:, 2:]]

    def detect(self, engine: Engine, pictures: slice = slice(None), canvas: Canvas | None = None) -> Detections:
        """Run an engine on `pictures` and postprocess as the server does, threshold 0.25.

        Args:
            canvas: for all of them, as in a request of several pictures; None is each picture's own.
        """
        chosen = range(len(self.sources))[pictures]
        found: dict[int, np.ndarray] = {}
        settings = nms.Settings(confidence_threshold=THRESHOLDS[0])
        canvases = self.canvases if canvas is None else [canvas] * len(self.canvases)
        for canvas in dict.fromkeys(canvases):
            same = [i for i in chosen if canvases[i] == canvas]
            for start in range(0, len(same), BATCH):
                rows = same[start : start + BATCH]
                batch = np.ascontiguousarray(self.inputs[rows, :, : canvas.height, : canvas.width])
                for i, candidates in zip(rows, engine(batch), strict=True):
                    found[i] = nms.detect(candidates, self.geometry[i], settings)
        return [found[i] for i in chosen]


def pictures(images: list[str], count: int | None, seed: int, limit: int) -> Iterator[tuple[str, bytes]]:
    """(source picture, JPEG bytes): each picture itself, then `count` variants of it; None: its windows instead."""
    sources = [source for text in images for source in open_source(text)]
    for source, wanted in zip(sources, shares([source.count() for source in sources], limit), strict=True):
        for frame in source.read(wanted, frozenset()):
            if isinstance(frame, SourceError):
                continue
            # A video's frames resemble each other: the whole video counts as one source picture.
            name = frame.key if isinstance(source, Pictures) else source.name
            if count is None:
                pixels = decode_full(frame.data)
                yield from ((name, data) for aspect in by_aspect.ASPECTS for data in windows.cut(pixels, aspect))
                continue
            yield name, frame.data
            for _, data in variants(frame.data, Path(name).name, count, seed):
                yield name, data


def prepare(
    items: list[tuple[str, bytes]],
    fp32: OnnxRuntime,
    folder: Path,
    package: bool = True,
    source_share: int | None = None,
) -> Evaluation:
    """Preprocess the pictures into a file in `folder` and take the references that need the whole picture.

    Args:
        items: from `pictures`.
        fp32: the FP32 graph.
        folder: for the inputs, 0.3 MB a picture.
        package: also run NudeDetector.
        source_share: leave out further pictures of a source and aspect once the reference has detected this many there;
            None takes all. The reference is NudeDetector, without it the graph at full decode.

    Raises:
        AccuracyError: no usable picture.
    """
    preprocess = Preprocessor(fp32.canvases)
    detector = nudenet_detector() if package else None
    canvases: list[Canvas] = []
    geometry: list[tuple[float, float, float, float]] = []
    sources: list[str] = []
    full: Detections = []
    nudenet: Detections = []
    inputs = np.lib.format.open_memmap(folder / "inputs.npy", "w+", np.uint8, (len(items), 3, *LARGEST))
    settings = nms.Settings(confidence_threshold=THRESHOLDS[0])
    given: Counter[tuple[str, str]] = Counter()
    for source, data in track(items, "pictures", console=Console(stderr=True), transient=True):
        try:
            aspect = by_aspect.aspect_of(*jpeg.read_header(data).upright_size)
            if source_share is not None and given[source, aspect] >= source_share:
                continue
            pixels, box = preprocess(data)
        except jpeg.JpegError:
            continue
        canvas = Canvas(*pixels.shape[1:])
        inputs[len(sources), :, : canvas.height, : canvas.width] = pixels  # a new file is black
        canvases.append(canvas)
        sources.append(source)
        geometry.append(box.geometry)
        candidates = fp32(preprocess(data, scaled=False)[0][None])[0]
        full.append(nms.detect(candidates, np.array(box.geometry, np.float32), settings))
        if detector:
            nudenet.append(detector(decode_full(data)))
        given[source, aspect] += len((nudenet if detector else full)[-1])
    if not sources:
        raise AccuracyError("not one usable picture")
    detections = {report.FULL_DECODE: full, **({report.NUDENET: nudenet} if detector else {})}
    return Evaluation(inputs[: len(sources)], canvases, np.array(geometry, np.float32), sources, detections)


def run_precisions(
    evaluation: Evaluation, fp32_path: Path, folder: Path, calibration: np.ndarray | None, keep: list[str] | None
) -> None:
    """Fill ``evaluation.detections`` with a row for each precision and engine.

    Args:
        evaluation: from `prepare`.
        fp32_path: the FP32 graph.
        folder: for converted graphs.
        calibration: frames for INT8; without them each half is calibrated on the other one.
        keep: layer groups to leave out of INT8; None for the measured ones.
    """
    rows = evaluation.detections
    used = list(dict.fromkeys(evaluation.canvases))
    fp32 = OnnxRuntime(fp32_path)
    rows[report.FP32] = evaluation.detect(fp32)
    if LARGEST in fp32.canvases:
        rows[report.ON_LARGEST] = evaluation.detect(fp32, canvas=LARGEST)
    rows[report.FP16] = evaluation.detect(OnnxRuntime(to_fp16(load_detector(fp32_path)).SerializeToString()))
    if has_bf16():
        rows[report.BF16] = evaluation.detect(openvino_engine(fp32_path, "BF16", used))
    halves = evaluation.folds if calibration is None else (slice(None),)
    for i, half in enumerate(halves):
        if calibration is None:
            other = evaluation.inputs[halves[1 - i]]
            frames = other[evenly(len(other), CALIBRATION_FRAMES)]
        else:
            frames = calibration
        if len(frames) < MIN_FRAMES:
            raise AccuracyError(
                f"{len(frames)} frames to calibrate on, {MIN_FRAMES} needed: more pictures or --variants"
            )
        symmetric = to_int8(fp32_path, frames, keep)
        served = folder / f"{i}" / "model.int8.onnx"
        write_graph(to_int8(fp32_path, frames, keep, symmetric=False), served)
        for name, engine in (
            (report.INT8_OPENVINO, openvino_engine(served, "INT8", used)),
            (report.INT8, OnnxRuntime(symmetric.SerializeToString())),
            (report.INT8_FP16, OnnxRuntime(to_fp16(symmetric).SerializeToString())),
        ):
            rows.setdefault(name, []).extend(evaluation.detect(engine, half))


def _record_int8(evaluation: Evaluation, fp32_path: Path, console: Console) -> int:
    """Judge the served INT8 graph and keep the outcome beside it; the exit status."""
    graph = fp32_path.with_name(INT8_GRAPH)
    if not graph.is_file():
        raise AccuracyError(f"no graph at {graph}: python build/precision.py --precision INT8")
    used = list(dict.fromkeys(evaluation.canvases))
    rows = {
        report.FP32: evaluation.detect(OnnxRuntime(fp32_path)),
        report.INT8_OPENVINO: evaluation.detect(openvino_engine(graph, "INT8", used)),
    }
    agreements = [report.agree(rows[report.FP32], rows[report.INT8_OPENVINO], threshold) for threshold in THRESHOLDS]
    f1, detections = min(one.f1 for one in agreements), agreements[0].reference
    write_record(graph, f1, report.GOALS[report.INT8_OPENVINO], detections, len(evaluation.sources))
    fault = int8_fault(graph.parent)
    console.print(
        f"{graph}: F1 {f1:.4f} against FP32, {detections} detections, {len(evaluation.sources)} pictures; precision "
        f"auto {f'does not serve it: {fault}' if fault else 'may serve it where it is faster'}",
        soft_wrap=True,
    )
    return 1 if fault else 0


def main(
    images: Annotated[
        list[str] | None, typer.Option(help="Folder, glob or video; repeat. Default: bundled ones.")
    ] = None,
    variants_each: Annotated[
        int | None,
        typer.Option(
            "--variants",
            min=0,
            help="Seeded variants of each picture; default 0, and windows of every aspect of bundled ones instead.",
        ),
    ] = None,
    calibration_data: Annotated[
        Path | None, typer.Option(help="calib_data.npy, made of other pictures than these.")
    ] = None,
    model: Annotated[Path, typer.Option(help="The FP32 graph.")] = DYNAMIC_OUTPUT,
    keep: Annotated[
        list[str] | None, typer.Option(help="Layer group not to quantise instead of the measured ones.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most pictures to take, evenly.")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of the variants; INT8 layers were chosen on 0, 1 and 2.")] = 3,
    record_int8: Annotated[
        bool,
        typer.Option(
            help="Judge only model.int8.onnx beside the FP32 graph, on pictures it was not calibrated on; its record "
            "tells precision auto whether it keeps the goal."
        ),
    ] = False,
    json_output: Annotated[Path | None, typer.Option("--json", help="Also write the figures there.")] = None,
) -> None:
    """Print how far each precision is from FP32 and from NudeDetector; exit 1 when a goal is missed."""
    console = Console(width=None if Console().is_terminal else 120)
    if images and variants_each is None:
        variants_each = 0
    try:
        if not model.is_file():
            raise AccuracyError(f"no graph at {model}: python build/export_onnx.py")
        load_detector(model)
        if json_output and not (json_output.is_fifo() or json_output.is_char_device()):  # those are not replaced
            check_output(json_output, model, calibration_data)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            fp32 = OnnxRuntime(model)
            items = list(
                pictures(
                    images or [str(BUNDLED / "*.jpg"), str(BUNDLED / "people" / "*.jpg")], variants_each, seed, limit
                )
            )
            size = fp32.canvases[0] if len(fp32.canvases) == 1 else LARGEST
            calibration = load_calibration(calibration_data, *size) if calibration_data else None
            share = SOURCE_SHARE if variants_each is None else None
            evaluation = prepare(items, fp32, folder, package=not record_int8, source_share=share)
            if record_int8:
                raise typer.Exit(_record_int8(evaluation, model, console))
            run_precisions(evaluation, model, folder, calibration, keep)
    except (AccuracyError, EngineError, GraphError, PrecisionError, SourceError, OSError) as error:
        typer.echo(f"accuracy: {error}", err=True)
        raise typer.Exit(2) from error
    names = list(dict.fromkeys(evaluation.sources))
    console.print(
        f"{len(evaluation.sources)} pictures: {len(names)} sources, "
        + (
            f"windows of each in every aspect until NudeDetector has found {SOURCE_SHARE} in an aspect. "
            if variants_each is None
            else f"{variants_each} seeded variants of each picture. "
        )
        + (
            f"INT8 is calibrated on {calibration_data}; that it holds none of these pictures is up to you."
            if calibration_data
            else "INT8: two halves by source picture, each judged with the graph calibrated on the other one."
        )
    )
    versions = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "openvino", "nudenet"))
    console.print(f"{platform.machine()}, Python {platform.python_version()}, {versions}")
    figures = report.compare(evaluation.detections, THRESHOLDS)
    report.print_tables(figures, console)
    by_shape = report.compare_by_aspect(evaluation.detections, evaluation.aspects, evaluation.sources, THRESHOLDS)
    by_aspect.print_table(by_shape, console)
    by_aspect.print_classes(evaluation.detections[report.NUDENET], evaluation.sources, labels(), console)
    if not images:
        console.print(
            "The bundled pictures show no nudity: exposed breasts, buttocks and genitalia have no evidence, and what "
            "is reported of them is false. For a real decision run this on your own pictures: --images FOLDER."
        )
    if json_output:
        rows = [*(figure.as_dict() for figure in figures), *(figure.as_dict() for figure in by_shape)]
        json_output.parent.mkdir(parents=True, exist_ok=True)
        json_output.write_text(json.dumps(rows, indent=1) + "\n")
    missed = [*report.missed_goals(figures), *report.missed_aspect_goals(by_shape)]
    for line in missed:
        console.print(f"[red]goal missed:[/red] {line}")
    raise typer.Exit(1 if missed else 0)


if __name__ == "__main__":
    typer.run(main)
