#!/usr/bin/env python3
"""Send video streams to a running server, each at its own frame rate, and watch or record what is found."""

from __future__ import annotations

import io
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, TextIO

import typer
from rich.console import Console
from rich.live import Live

import nudenet_client
from container import repository
from nudenet_tools import options
from nudenet_tools.pictures import drawing
from nudenet_tools.rules import options as rule_options
from nudenet_tools.rules.rule_file import RuleFileError
from nudenet_tools.rules.rule_file import read as read_rules
from nudenet_tools.rules.session import request
from nudenet_tools.streams import outputs, source, table
from nudenet_tools.streams.runner import Consumer, Stream
from nudenet_tools.webhooks.http import TargetError
from nudenet_tools.webhooks.signing import SecretError

REFRESHES = 4  # a second

app = typer.Typer(add_completion=False)
errors = Console(stderr=True, highlight=False)


def input_options(pairs: list[str]) -> dict[str, str]:
    """``key=value`` texts as a mapping.

    Raises:
        typer.BadParameter: no ``=``.
    """
    for pair in pairs:
        if "=" not in pair:
            raise typer.BadParameter(f"must be key=value, got {pair!r}", param_hint="--input-option")
    return dict(pair.split("=", 1) for pair in pairs)


def watch(
    streams: list[Stream], stop: threading.Event, seconds: float | None, look: Callable[[], None] = lambda: None
) -> None:
    """Run the streams to their end, to `stop`, or for `seconds`; show the live table where there is a terminal.

    Args:
        look: called while they run and once they have ended.
    """
    for stream in streams:
        stream.start()
    timer = threading.Timer(seconds, stop.set) if seconds else None
    if timer is not None:
        timer.daemon = True
        timer.start()
    with Live(console=errors, auto_refresh=False, transient=True) if errors.is_terminal else ExitStack() as live:
        while any(stream.running for stream in streams) and not stop.wait(1 / REFRESHES):
            look()
            if isinstance(live, Live):
                live.update(table.live(streams), refresh=True)
    for stream in streams:
        # A reader may wait for the network, a sender for its answer: both have time limits of their own.
        stream.join(None if not stop.is_set() else 2 * source.TIMEOUT)
    look()


@app.command()
def main(
    sources: Annotated[
        list[str], typer.Argument(help="Videos, folders, rtsp:// and http:// addresses, webcams (/dev/video0).")
    ],
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
    in_flight: Annotated[int, typer.Option(min=1, max=8, help="Frames of one stream under way at once.")] = 2,
    deadline: Annotated[float, typer.Option(min=0.001, help="Seconds a frame may take; then it has failed.")] = 2.0,
    every_frame: Annotated[
        bool, typer.Option("--every-frame", help="Recordings: as fast as the server allows, none dropped.")
    ] = False,
    fps: Annotated[float, typer.Option(min=0.01, help="Pace of folders of pictures.")] = 25.0,
    quality: Annotated[int, typer.Option(min=1, max=100, help="JPEG quality for sources that are not MJPEG.")] = 85,
    duration: Annotated[float | None, typer.Option(min=0.1, help="Stop after so many seconds.")] = None,
    input_option: Annotated[
        list[str] | None, typer.Option(help="key=value for FFmpeg's demuxer, e.g. rtsp_transport=udp.")
    ] = None,
    json_lines: Annotated[Path | None, typer.Option("--json", help="JSON lines into this file; - is stdout.")] = None,
    annotate: Annotated[Path | None, typer.Option(help="Videos with boxes and names into this folder.")] = None,
    censor: Annotated[Path | None, typer.Option(help="Censored videos into this folder.")] = None,
    censor_classes: options.CensorClasses = options.CENSORED_BY_DEFAULT,
    style: options.CensorStyle = drawing.Style.blur,
    hold: Annotated[float, typer.Option(min=0, help="Seconds that a censored area outlasts its detection.")] = 0.5,
    events: Annotated[Path | None, typer.Option(help="Subtitles (.srt) of what appears into this folder.")] = None,
    rules: rule_options.Rules = None,
    rule_events: rule_options.RuleEvents = None,
    webhook: rule_options.WebhookUrl = "",
    webhook_secret_file: rule_options.SecretFile = None,
    webhook_ca: rule_options.WebhookCa = None,
    webhook_allow_http: rule_options.AllowHttp = False,
    webhook_allow_private: rule_options.AllowPrivate = False,
    outbox: rule_options.OutboxFile = rule_options.DEFAULT_OUTBOX,
    outbox_megabytes: rule_options.OutboxMegabytes = rule_options.DEFAULT_MEGABYTES,
    outbox_hours: rule_options.OutboxHours = rule_options.DEFAULT_HOURS,
    evidence: rule_options.WithEvidence = False,
) -> None:
    """Detect in streams until they end or Ctrl-C. The newest frame wins: a slow server costs frames, never delay.

    Exit status 1 if a stream could not be read to its end.
    """
    shown = options.split_labels(classes, "--classes") if classes else None
    hidden = options.split_labels(censor_classes, "--censor-classes")
    access = options.access(tls, ca, api_key_file)
    asked = options.asked_labels(shown, hidden if censor else None)
    parameters = nudenet_client.Parameters(confidence_threshold, iou_threshold, max_detections, asked, priority, policy)

    def note(text: str) -> None:
        errors.print(text, markup=False, soft_wrap=True)

    if rules is None and (rule_events or webhook or evidence):
        raise typer.BadParameter("--rule-events, --webhook and --evidence need it", param_hint="--rules")
    to_stdout = str(rule_events) == "-" or not (rule_events or webhook)
    if rules is not None and to_stdout and str(json_lines) == "-":
        raise typer.BadParameter("frames and events cannot both go to stdout", param_hint="--rule-events")
    rule_file = None
    if rules is not None:
        with options.said_in_a_line(errors, RuleFileError):
            rule_file = read_rules(rules, repository.labels())
            parameters = request(rule_file, parameters, hidden if evidence else ())
    with options.said_in_a_line(errors, source.SourceError):
        found = [
            one
            for text in sources
            for one in source.find(text, fps, not every_frame, input_options(input_option or []), note)
        ]
    stems = source.file_stems(found)
    folders = (("--annotate", annotate, ".mp4"), ("--censor", censor, ".mp4"), ("--events", events, ".srt"))
    files = (("--json", json_lines), ("--rule-events", rule_events), ("--outbox", outbox if webhook else None))
    options.check_outputs(
        [(option, path) for option, path in files if path is not None and str(path) != "-"]
        + [(option, folder / f"{stem}{suffix}") for option, folder, suffix in folders if folder for stem in stems],
        [path for one in found for path in one.files or (one.name,)] + ([rules] if rules else []),
    )
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    failures = (OSError, nudenet_client.ClientError, SecretError, TargetError)
    with options.said_in_a_line(errors, *failures), ExitStack() as stack:
        client = stack.enter_context(
            nudenet_client.Client(
                url or f"127.0.0.1:{grpc_port}",
                deadline=deadline,
                retries=4 if every_frame else 0,  # live, the next frame is worth more than this one
                **access,
            )
        )
        file: TextIO | None = None
        if json_lines is not None:
            if str(json_lines) == "-":
                file = sys.stdout
                if isinstance(file, io.TextIOWrapper):
                    file.reconfigure(encoding="utf-8")  # what JSON is, whatever the terminal's encoding
            else:
                file = stack.enter_context(json_lines.open("w", encoding="utf-8"))
        lock = threading.Lock()
        streams: list[Stream] = []
        session, watchers = None, {}
        if rule_file is not None:
            delivering = rule_options.Delivering(
                rule_events,
                webhook,
                webhook_secret_file,
                webhook_ca,
                webhook_allow_http,
                webhook_allow_private,
                outbox,
                outbox_megabytes,
                outbox_hours,
            )
            session = delivering.open(stack, rule_file, (hidden, style) if evidence else None, note)
            labels = {stem: one.label for stem, one in zip(stems, found, strict=True)}
            watchers = dict(zip(stems, session.watch(labels), strict=True))
        for one, stem in zip(found, stems, strict=True):
            consumers: list[Consumer] = []
            if stem in watchers:
                consumers.append(watchers[stem])
            if file is not None:
                consumers.append(outputs.JsonLines(file, one.label, lock, shown))
            closing: list[outputs.Video | outputs.Events] = []
            if annotate is not None:
                closing.append(outputs.AnnotatedVideo(annotate / f"{stem}.mp4", shown))
            if censor is not None:
                closing.append(outputs.CensoredVideo(censor / f"{stem}.mp4", hidden, style, hold))
            if events is not None:
                closing.append(outputs.Events(events / f"{stem}.srt", shown))
            for output in closing:
                stack.callback(output.close)
            streams.append(
                Stream(
                    one,
                    client,
                    parameters,
                    [*consumers, *closing],
                    stop,
                    in_flight=in_flight,
                    every_frame=every_frame,
                    quality=quality,
                )
            )
        watch(streams, stop, duration, lambda: session.look(streams, stop.is_set()) if session else None)
    Console(stderr=True, highlight=False, width=None if errors.is_terminal else 160).print(table.summary(streams))
    if any(stream.error for stream in streams):
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
