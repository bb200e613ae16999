#!/usr/bin/env python3
"""When is what seen in a video file? Segments per class and verdict, as JSON."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import nudenet_client
from nudenet_tools import ROOT, options
from nudenet_tools.segments.files import Settings, analyse
from nudenet_tools.streams import source

app = typer.Typer(add_completion=False)
console = Console(stderr=True, highlight=False)


@app.command()
def main(
    videos: Annotated[list[str], typer.Argument(help="Video files, folders of them, http:// addresses of files.")],
    url: options.Url = "",
    grpc_port: options.GrpcPort = 8001,
    tls: options.UseTls = False,
    ca: options.Ca = None,
    api_key_file: options.ApiKeyFile = None,
    confidence_threshold: options.ConfidenceThreshold = None,
    iou_threshold: options.IouThreshold = None,
    max_detections: options.MaxDetections = None,
    classes: options.Classes = "",
    priority: options.Priority = 0,
    policy: options.Policy = None,
    every: Annotated[int, typer.Option(min=1, help="Analyse every so manieth frame.")] = 1,
    gap: Annotated[float, typer.Option(min=0, help="Finds at most so many seconds apart are one segment.")] = 1.0,
    stop_at_block: Annotated[bool, typer.Option("--stop-at-block", help="End at the first verdict block.")] = False,
    quality: Annotated[int, typer.Option(min=1, max=100, help="JPEG quality of frames that are not MJPEG.")] = 85,
    deadline: Annotated[float, typer.Option(min=0.001, help="Seconds a request may take.")] = 10.0,
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = ROOT / "out" / "segments",
) -> None:
    """Write one JSON file of segments for each video. What was stopped or killed goes on when it is started again.

    Exit status 1 if a video could not be analysed to its end.
    """
    if stop_at_block and policy is None:
        raise typer.BadParameter("a block is a policy's verdict; add --policy", param_hint="--stop-at-block")
    wanted = options.split_labels(classes, "--classes") if classes else None
    access = options.access(tls, ca, api_key_file)
    parameters = nudenet_client.Parameters(
        confidence_threshold, iou_threshold, max_detections, wanted, priority, policy
    )
    settings = Settings(parameters, every, gap, stop_at_block, quality)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())

    def note(text: str, style: str = "") -> None:
        console.print(text, markup=False, soft_wrap=True, style=style)

    failed = False
    with options.said_in_a_line(console, source.SourceError, nudenet_client.ClientError):
        found = [one for text in videos for one in source.find(text, 25.0, False, {}, note)]
        client = nudenet_client.Client(url or f"127.0.0.1:{grpc_port}", deadline=deadline, **access)
    with client:
        for one, stem in zip(found, source.file_stems(found), strict=True):
            if stop.is_set():
                failed = True
                break
            result = output / f"{stem}.json"
            try:
                answer = analyse(client, one, settings, result, stop)
            except (source.SourceError, nudenet_client.ClientError, OSError) as error:
                note(f"{one.label}: {error}", "red")
                failed = True
                continue
            frames = answer["frames"]
            failed = failed or not answer["complete"]
            verdict = f", {answer['verdict']}" if answer["verdict"] else ""
            state = str(result) if answer["complete"] else "stopped; start it again to go on"
            note(
                f"{one.label}: {frames['analysed']} frames, {frames['failed']} failed, "
                f"{len(answer['segments'])} segments{verdict}: {state}"
            )
    if failed:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
