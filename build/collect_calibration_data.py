#!/usr/bin/env python3
"""Collect calibration frames for INT8 from folders, globs, videos and camera streams.

Frames go through the modules that preprocess on the server, imported and not copied: calibration input that is
normalised otherwise than serving input is the classic way to ruin an INT8 engine.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nudenet_build.calibration.calibration_file import CalibrationFile, CalibrationFileError
from nudenet_build.calibration.frames import Frame, Source, SourceError, open_source, shares
from nudenet_build.graph.export import DYNAMIC_OUTPUT, MAX_SIDE
from nudenet_build.graph.onnx_file import GraphError, load_detector
from nudenet_build.graph.precision import canvas_of
from nudenet_build.outputs import check_output
from nudenet_steps.engines.onnxruntime_cpu import OnnxRuntimeEngine
from nudenet_steps.pipeline import Preprocessor, labels
from nudenet_steps.postprocess import nms
from nudenet_steps.preprocess import jpeg
from nudenet_steps.preprocess.canvas import LARGEST, Canvas
from nudenet_steps.preprocess.letterbox import TO_UNIT
from nudenet_tools.streams import addresses

RECOMMENDED_FRAMES = 500
THUMBNAIL = (16, 9)  # width, height; enough to tell two frames of a still scene from two scenes


class Thumbnails:
    """Finds frames that look like one that has been kept."""

    def __init__(self, least_difference: float) -> None:
        self.least_difference = least_difference
        self._kept = np.empty((0, THUMBNAIL[0] * THUMBNAIL[1]), np.float32)

    def make(self, frame: np.ndarray) -> np.ndarray:
        """Grey thumbnail, FP32 [144] in 0..255, of UINT8 [3,H,W]."""
        return cv2.resize(frame.mean(axis=0, dtype=np.float32), THUMBNAIL, interpolation=cv2.INTER_AREA).ravel()

    def is_new(self, thumbnail: np.ndarray) -> bool:
        """Whether it differs from each kept one by `least_difference` grey levels on average."""
        return not len(self._kept) or bool(np.abs(self._kept - thumbnail).mean(1).min() >= self.least_difference)

    def keep(self, thumbnail: np.ndarray) -> None:
        """Remember it."""
        self._kept = np.concatenate([self._kept, thumbnail[None]])


def detector(model: Path) -> Callable[[np.ndarray], list[str]]:
    """A function from UINT8 [3,H,W] to the labels detected in it, on ONNX Runtime."""
    engine = OnnxRuntimeEngine.from_graph(model)
    names, settings = labels(), nms.Settings()

    def detect(frame: np.ndarray) -> list[str]:
        canvas = canvas_of(frame, engine.canvases) or Canvas(*frame.shape[1:])
        candidates = engine.infer([np.ascontiguousarray(frame[None, :, : canvas.height, : canvas.width])])[0]
        height, width = frame.shape[1:]
        found = nms.detect(candidates, np.array([1, 1, width, height], np.float32), settings)
        return [names[int(row[4])] for row in found]

    return detect


def collect(
    sources: list[Source],
    file: CalibrationFile,
    target: int,
    least_difference: float,
    detect: Callable[[np.ndarray], list[str]] | None = None,
    advance: Callable[[int], None] | None = None,
) -> None:
    """Fill `file` with up to `target` frames, evenly from all `sources`; goes on where `file` stands.

    Args:
        sources: from `frames.open_source`.
        file: where frames and records go.
        target: frames to look at; near-duplicates and refused ones are not replaced.
        least_difference: see `Thumbnails`; 0 keeps all.
        detect: labels found in a model input, for the summary.
        advance: called with the number of frames looked at.
    """
    _, height, width = file.shape
    preprocess = Preprocessor((Canvas(height, width),))
    thumbnails = Thumbnails(least_difference)
    for record in file.records:
        if record["kept"]:
            thumbnails.keep(np.array(record["thumbnail"], np.float32))
    done: dict[str, set[str]] = {}
    for record in file.records:
        done.setdefault(record["source"], set()).add(record["key"])
    for source, wanted in zip(sources, shares([source.count() for source in sources], target), strict=True):
        for item in source.read(wanted, frozenset(done.get(source.name, ()))):
            if isinstance(item, SourceError):
                file.add({"source": source.name, "key": str(item), "refused": str(item)}, None)
            else:
                file.add(*_look_at(item, preprocess, thumbnails, detect))
            if advance:
                advance(len(file.records))


def _look_at(
    frame: Frame,
    preprocess: Preprocessor,
    thumbnails: Thumbnails,
    detect: Callable[[np.ndarray], list[str]] | None,
) -> tuple[dict[str, Any], np.ndarray | None]:
    """The record of a frame, and its model input if it is to be kept."""
    record: dict[str, Any] = {"source": frame.source, "key": frame.key}
    try:
        pixels, box = preprocess(frame.data)
    except jpeg.JpegError as error:
        return {**record, "refused": f"{frame.title}: {error}"}, None
    thumbnail = thumbnails.make(pixels[:, : box.height, : box.width])
    if not thumbnails.is_new(thumbnail):
        return {**record, "duplicate": True}, None
    thumbnails.keep(thumbnail)
    record["thumbnail"] = [round(float(value), 1) for value in thumbnail]
    record["size"] = [box.source_width, box.source_height]
    record["brightness"] = round(float(thumbnail.mean()), 1)
    if detect:
        record["labels"] = detect(pixels)
    return record, pixels * TO_UNIT


def warnings(records: list[dict[str, Any]]) -> list[str]:
    """What is wrong with a set of records as a calibration set, in sentences."""
    kept = [record for record in records if record["kept"]]
    result = []
    if len(kept) < RECOMMENDED_FRAMES:
        result.append(f"only {len(kept)} frames; {RECOMMENDED_FRAMES} to 1000 are recommended: add sources")
    brightness = [record["brightness"] for record in kept]
    if len(kept) > 1 and statistics.pstdev(brightness) < 15:
        result.append("all frames are about equally bright: add day and night, indoors and outdoors")
    if len({record["source"] for record in kept}) == 1 and not Path(kept[0]["source"]).is_dir():
        result.append("all frames are from one source: add other scenes")
    found = [record for record in kept if record.get("labels")]
    if any("labels" in record for record in kept) and len(found) < 0.2 * len(kept):
        result.append(
            f"the detector finds something in {len(found)} of {len(kept)} frames only: "
            "activation ranges of what it should find will be guesses; add frames with people"
        )
    return result


def summarise(records: list[dict[str, Any]], console: Console) -> None:
    """Print what the set holds, and its warnings."""
    kept = [record for record in records if record["kept"]]
    refused = [record["refused"] for record in records if "refused" in record]
    duplicates = sum("duplicate" in record for record in records)
    console.print(
        f"looked at {len(records)} frames: {len(kept)} kept, {duplicates} near-duplicates, {len(refused)} refused"
    )
    for reason in refused[:5]:
        console.print(f"  refused: {reason}", markup=False, highlight=False, soft_wrap=True)
    sizes = Counter("x".join(map(str, record["size"])) for record in kept)
    console.print("sizes: " + ", ".join(f"{size} ({count})" for size, count in sizes.most_common(5)))
    brightness = sorted(record["brightness"] for record in kept)
    console.print(
        f"brightness 0..255: {brightness[0]:.0f} to {brightness[-1]:.0f}, median {statistics.median(brightness):.0f}"
    )
    if any("labels" in record for record in kept):
        found = Counter(label for record in kept for label in record["labels"])
        console.print(
            f"with detections: {sum(bool(record['labels']) for record in kept)} of {len(kept)} frames; "
            + ", ".join(f"{label} {count}" for label, count in found.most_common())
        )
    for warning in warnings(records):
        console.print(f"[yellow]warning:[/yellow] {warning}")


def input_size(model: Path) -> tuple[int, int]:
    """(height, width) in pixels that the graph at `model` takes; of the largest canvas where both are open.

    Raises:
        GraphError: a damaged graph, or one of something else.
    """
    shape = load_detector(model).graph.input[0].type.tensor_type.shape.dim
    return shape[2].dim_value or LARGEST.height, shape[3].dim_value or LARGEST.width


def main(
    sources: Annotated[list[str], typer.Argument(help="Folders, globs, pictures, videos, rtsp:// or http:// streams.")],
    output: Annotated[Path, typer.Option(help="The file to write.")] = Path("calib_data.npy"),
    frames: Annotated[int, typer.Option(min=1, help="How many frames to look at, over all sources.")] = 1000,
    model: Annotated[Path, typer.Option(help="FP32 graph: gives the size, and counts detections.")] = DYNAMIC_OUTPUT,
    height: Annotated[int | None, typer.Option(min=1, max=MAX_SIDE, help="Input height; default: the graph's.")] = None,
    width: Annotated[int | None, typer.Option(min=1, max=MAX_SIDE, help="Input width; default: the graph's.")] = None,
    least_difference: Annotated[
        float, typer.Option(min=0, help="Grey levels (of 255) between two thumbnails below which one is dropped.")
    ] = 2.0,
    interval: Annotated[float, typer.Option(min=0, help="Seconds between samples of a stream.")] = 1.0,
    restart: Annotated[bool, typer.Option(help="Throw away an interrupted run instead of going on with it.")] = False,
) -> None:
    """Collect 500 to 1000 frames as FP32 [N,3,height,width] in [0,1]; Ctrl-C and the same command goes on.

    By default on 320x320 pixels, at NudeNet's scale for every aspect; converting cuts each frame to its canvas. For a
    graph of one size, such as model.onnx, name it with --model: frames are then scaled to fit it.
    """
    console = Console(stderr=True)
    if not model.is_file() and not (height and width):
        console.print(f"collect_calibration_data: no graph at {model}: python build/export_onnx.py", markup=False)
        raise typer.Exit(2)
    try:
        check_output(output, model, *(Path(text) for text in sources if not addresses.is_address(text)))
        graph_size = input_size(model) if model.is_file() else (0, 0)
        height, width = height or graph_size[0], width or graph_size[1]
        detect = detector(model) if graph_size == (height, width) else None
        settings = {
            "sources": [addresses.label(text) if addresses.is_address(text) else text for text in sources],
            "frames": frames,
            "size": [height, width],
            "least_difference": least_difference,
            "interval": interval,
        }
        opened = [source for text in sources for source in open_source(text, interval)]
        file = CalibrationFile(output, (3, height, width), settings, restart)
    except (GraphError, SourceError, CalibrationFileError, OSError) as error:
        console.print(f"collect_calibration_data: {error}", markup=False)
        raise typer.Exit(2) from error
    if file.records:
        console.print(f"going on: {len(file.records)} frames were looked at, {file.frames} kept")
    columns = (TextColumn("frames"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    total = sum(shares([source.count() for source in opened], frames))
    try:
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("frames", total=total, completed=len(file.records))
            collect(
                opened, file, frames, least_difference, detect, lambda count: progress.update(task, completed=count)
            )
        if file.frames:
            file.finish()
    except KeyboardInterrupt:
        file.close()
        console.print(f"stopped with {file.frames} frames kept; the same command goes on from here")
        raise typer.Exit(130) from None
    except OSError as error:  # a full disk, say: what is whole stays for the same command
        console.print(f"collect_calibration_data: {error}", markup=False)
        raise typer.Exit(2) from error
    if not file.frames:
        file.close()
        console.print("collect_calibration_data: not one usable frame")
        summary = [record["refused"] for record in file.records if "refused" in record]
        console.print("\n".join(summary[:5]), markup=False)
        raise typer.Exit(2)
    summarise(file.records, console)
    typer.echo(f"{output}: FP32 [{file.frames},3,{height},{width}]")


if __name__ == "__main__":
    typer.run(main)
