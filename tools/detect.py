#!/usr/bin/env python3
"""Send pictures to a running server and show what it finds; draw or censor it if asked to."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

import nudenet_client
from nudenet_client import ClientError, Detections, Parameters
from nudenet_client.pictures import pixels_and_profile
from nudenet_tools import options
from nudenet_tools.pictures import drawing
from nudenet_tools.pictures import files as picture_files

SHOW_PROGRESS_FROM = 16  # pictures

app = typer.Typer(add_completion=False)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


class Run:
    """One run over all pictures: keeps the files just sent until their answers are there."""

    def __init__(self, sources: list[picture_files.Source]) -> None:
        self.sources = sources
        self.failures = 0
        self._sent: dict[int, bytes] = {}

    def files(self, keep: bool) -> Iterator[bytes | str]:
        """The pictures as the client takes them; with `keep`, `sent` has them until asked."""
        for i, source in enumerate(self.sources):
            try:
                data = source.read()
            except nudenet_client.PictureError:
                yield source.name  # the client meets the same error and reports it in its place
                continue
            if keep:
                self._sent[i] = data
            yield data

    def sent(self, index: int) -> bytes:
        """The bytes that were sent for one picture; once."""
        return self._sent.pop(index, b"")

    def fail(self, source: picture_files.Source, reason: str) -> None:
        """Tell the user that one picture failed."""
        self.failures += 1
        errors.print(f"{source.shown}: {reason}", style="red", markup=False)


class Report:
    """What goes to standard output: a table at the end, or a line of JSON at once."""

    def __init__(self, as_json: bool, judged: bool) -> None:
        self._json = as_json
        if as_json and isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")  # what JSON is, whatever the terminal's encoding
        self._table = Table(box=box.SIMPLE_HEAD)
        self._table.add_column("picture", overflow="fold")
        self._table.add_column("size", justify="right")
        self._table.add_column("label")
        self._table.add_column("confidence", justify="right")
        self._table.add_column("x1, y1, x2, y2", justify="right")
        self._judged = judged
        if judged:
            self._table.add_column("verdict")

    def add(self, name: str, found: Detections) -> None:
        if self._json:
            print(found.to_json(name), flush=True)
            return
        if found.error is not None:
            return
        verdict = [found.verdict] if self._judged else []
        picture, size = Text(name), f"{found.width}x{found.height}"
        for d in found:
            self._table.add_row(
                picture, size, d.label, f"{d.confidence:.3f}", ", ".join(f"{v:.0f}" for v in d.box), *verdict
            )
            picture, size, verdict = Text(), "", [""] if self._judged else []
        if not found:
            self._table.add_row(picture, size, "nothing found", "", "", *verdict, style="dim")

    def close(self) -> None:
        if not self._json and self._table.row_count:
            # Into a file or a pipe nothing is folded for a window that is not there.
            Console(highlight=False, width=None if sys.stdout.isatty() else 200).print(self._table)


class Drawings:
    """The pictures that a run writes: annotated, censored, both or none."""

    def __init__(
        self,
        sources: list[picture_files.Source],
        annotate: Path | None,
        censor: Path | None,
        hidden: list[str],
        style: drawing.Style,
    ) -> None:
        self._annotated = picture_files.Writer(annotate, sources) if annotate else None
        self._censored = picture_files.Writer(censor, sources) if censor else None
        self._hidden, self._style = hidden, style

    @property
    def wanted(self) -> bool:
        return self._annotated is not None or self._censored is not None

    def write(self, source: picture_files.Source, data: bytes, found: Detections, shown: Detections) -> None:
        """Write one picture; `shown` is the part of `found` that the user asked to see.

        Raises:
            picture_files.OutputError: it must not or cannot be written.
            nudenet_client.PictureError: `data` cannot be decoded.
        """
        if self._annotated is not None:
            pixels, profile = pixels_and_profile(data)
            drawing.annotate(pixels, shown)
            self._annotated.write(source, pixels, profile)
        if self._censored is not None:
            pixels, profile = pixels_and_profile(data)
            drawing.censor(pixels, found.only(self._hidden), self._style)
            self._censored.write(source, pixels, profile)


@app.command()
def detect(
    pictures: Annotated[list[str], typer.Argument(help="Picture files, folders, or - for standard input.")],
    url: options.Url = "",
    http: Annotated[bool, typer.Option("--http", help="HTTP instead of gRPC.")] = False,
    grpc_port: options.GrpcPort = 8001,
    http_port: options.HttpPort = 8000,
    tls: options.UseTls = False,
    ca: options.Ca = None,
    api_key_file: options.ApiKeyFile = None,
    confidence_threshold: options.ConfidenceThreshold = None,
    iou_threshold: options.IouThreshold = None,
    max_detections: options.MaxDetections = None,
    classes: options.Classes = "",
    priority: options.Priority = 0,
    policy: options.Policy = None,
    batch_size: Annotated[int, typer.Option(min=1, max=nudenet_client.MAX_BATCH, help="Pictures a request.")] = 8,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight.")] = 4,
    deadline: Annotated[float, typer.Option(min=0.001, help="Seconds a request may take.")] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON a picture.")] = False,
    annotate: Annotated[Path | None, typer.Option(help="Write pictures with boxes and names here.")] = None,
    censor: Annotated[Path | None, typer.Option(help="Write censored pictures here, without their EXIF.")] = None,
    censor_classes: options.CensorClasses = options.CENSORED_BY_DEFAULT,
    style: options.CensorStyle = drawing.Style.blur,
) -> None:
    """Detect in pictures. Exit status 1 if any of them failed; the others are answered all the same."""
    shown = options.split_labels(classes, "--classes") if classes else None
    hidden = options.split_labels(censor_classes, "--censor-classes")
    access = options.access(tls, ca, api_key_file)
    with options.said_in_a_line(errors, OSError):
        run = Run(picture_files.find(pictures, lambda text: errors.print(text, markup=False)))
    folders = [(option, folder) for option, folder in (("--annotate", annotate), ("--censor", censor)) if folder]
    options.check_outputs(((option, folder / one.relative) for option, folder in folders for one in run.sources), ())
    asked = options.asked_labels(shown, hidden if censor else None)
    parameters = Parameters(confidence_threshold, iou_threshold, max_detections, asked, priority, policy)
    drawings = Drawings(run.sources, annotate, censor, hidden, style)
    report = Report(as_json, judged=policy is not None)
    columns = (TextColumn("detecting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=errors, transient=True)
    progress.disable = len(run.sources) < SHOW_PROGRESS_FROM or not errors.is_terminal
    task = progress.add_task("", total=len(run.sources))
    answered = 0
    try:
        with (
            progress,
            nudenet_client.Client(
                url or f"127.0.0.1:{http_port if http else grpc_port}",
                protocol="http" if http else "grpc",
                deadline=deadline,
                concurrency=concurrency,
                **access,
            ) as client,
        ):
            answers = client.detect_many(
                run.files(drawings.wanted), parameters, batch_size=batch_size, on_error="report"
            )
            for index, (source, found) in enumerate(zip(run.sources, answers, strict=True)):
                data = run.sent(index)
                visible = found if shown is None else found.only(shown)
                report.add(source.shown, visible)
                if found.error is not None:
                    run.fail(source, found.error)
                elif drawings.wanted:
                    try:
                        drawings.write(source, data, found, visible)
                    except (picture_files.OutputError, nudenet_client.PictureError) as error:
                        run.fail(source, str(error))
                answered += 1
                progress.advance(task)
    except nudenet_client.ServerUnavailable as error:
        errors.print(f"{error}\nis the server running? make serve", style="red", markup=False)
    except ClientError as error:
        errors.print(str(error), style="red", markup=False)
    report.close()
    if run.failures or answered < len(run.sources):
        if answered < len(run.sources):
            errors.print(f"{len(run.sources) - answered} of {len(run.sources)} pictures not answered", style="red")
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
