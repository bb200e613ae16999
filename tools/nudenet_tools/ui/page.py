"""The page: its controls, its layout and what happens when they are used."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from html import escape
from typing import Any

import gradio as gr
import numpy as np
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from container import repository
from nudenet_steps.suffixes import PICTURE_SUFFIXES, VIDEO_SUFFIXES
from nudenet_tools.pictures import drawing
from nudenet_tools.server.status import StatusError, read_status
from nudenet_tools.ui import verdicts, views
from nudenet_tools.ui.views import Settings, View, Viewer

BOXES, CENSORED = "boxes", "censored"
LOOPBACK = "127.0.0.1"
CAMERA_INTERVAL = 0.2  # seconds between two frames of the camera

# Fonts of the system only: a web font would be fetched from elsewhere.
_FONT = ("system-ui", "sans-serif")
_MONO = ("ui-monospace", "monospace")
THEME = gr.themes.Default(primary_hue="teal", neutral_hue="slate", radius_size="md", font=_FONT, font_mono=_MONO)
CSS = """
.gradio-container { max-width: 1500px !important; width: 100%; margin: 0 auto; }
.gradio-container .column { min-width: 0; }
.top { display: flex; align-items: baseline; gap: 1rem; }
.top h1 { font-size: 1.35rem; font-weight: 600; margin: 0; }
.top small, .headline small, .times small, .times h3 { color: var(--body-text-color-subdued); }
.headline { padding: .6rem .9rem; border-radius: .4rem; background: var(--background-fill-secondary);
  border-left: .3rem solid var(--primary-500); font-size: 1rem; }
.headline b { font-size: 1.25rem; } .headline small { margin-left: .6rem; } .headline p { margin: .3rem 0 0; }
.verdicts { display: flex; flex-wrap: wrap; gap: 1.5rem; padding: .4rem .9rem; }
.verdicts ul { margin: .2rem 0 0 1rem; } .verdict.allow { color: #15803d; } .verdict.review { color: #b45309; }
.verdict.block, .verdict.error { color: #dc2626; }
.headline.failed { border-color: #dc2626; } .headline.failed b { font-size: 1rem; }
.headline.failed p, .headline .trouble { color: #dc2626; }
.headline.note { border-color: var(--neutral-400); }
.chip { display: inline-block; margin: .3rem .3rem 0 0; padding: .05rem .6rem; border-radius: 1rem;
  background: var(--primary-100); color: var(--primary-800); font-size: .8rem; }
.times { padding: .2rem .3rem; } .times h3 { font-size: .85rem; font-weight: 400; margin: 0 0 .4rem; }
.times table { width: 100%; border-collapse: collapse; font-size: .9rem; margin-bottom: .5rem; }
.times th, .times td { border: 0 !important; padding: .25rem 0; background: none !important; }
.times th { text-align: left; font-weight: 400; width: 6rem; }
.times td:last-child { text-align: right; width: 5.5rem; font-variant-numeric: tabular-nums; }
.bar { display: flex; height: .8rem; } .work { background: var(--primary-500); } .wait { background: #f59e0b; }
.key { display: inline-block; width: .7rem; height: .7rem; margin: 0 .2rem 0 .8rem; }
.classes .select-all-label, .classes span { white-space: nowrap; }
.classes label { font-size: .75rem; padding: .2rem .5rem !important; width: 100%; }
"""


def build(viewer: Viewer, http_url: str) -> gr.Blocks:
    """The page, not yet served. `http_url` is HOST:PORT of the server's HTTP."""
    labels = repository.labels()
    # Old uploads and results go after an hour; all of them with the process, see ui.py.
    with gr.Blocks(title="NudeNet on Triton", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        top = gr.HTML()
        page.load(lambda: _top(http_url), outputs=top, api_visibility="private", show_progress="hidden")
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                controls = _controls(labels)
            with gr.Column(scale=4), gr.Tabs():
                with gr.Tab("Picture or clip"):
                    _files(viewer, controls)
                with gr.Tab("Camera"):
                    _camera(viewer, controls)
    return page


def _top(http_url: str) -> str:
    try:
        status = read_status(http_url)
    except StatusError as error:
        return f'<div class="top"><h1>NudeNet on Triton</h1></div>{views.failure("the server", error).headline}'
    state = "ready" if status.ready else "not ready"
    facts = f"Triton {status.version} at {http_url}, {state}, engine: {status.engine}"
    return f'<div class="top"><h1>NudeNet on Triton</h1><small>{escape(facts)}</small></div>'


def _controls(labels: list[str]) -> list[Any]:
    """In the order of the arguments of `_settings`."""
    confidence = gr.Slider(0, 1, 0.25, step=0.01, label="Confidence, at least", buttons=["reset"], elem_id="confidence")
    iou = gr.Slider(0, 1, 0.45, step=0.01, label="Overlap, at most", buttons=["reset"])
    most = gr.Slider(1, 100, 100, step=1, label="Most detections", buttons=["reset"])
    policies = gr.CheckboxGroup(verdicts.policy_names(), value=[], label="Verdicts by policy", elem_id="policies")
    view = gr.Radio([BOXES, CENSORED], value=BOXES, label="View", elem_id="view")
    style = gr.Radio([style.value for style in drawing.Style], value="blur", label="Censor by", visible=False)
    with gr.Accordion("Classes to censor", open=True, visible=False) as section:
        censored = _classes(labels, list(drawing.CENSORED_BY_DEFAULT), "censored")
    with gr.Accordion("Classes to show", open=False, elem_id="shown-section"):
        shown = _classes(labels, labels, "shown")

    def show(chosen: str) -> list[Any]:
        return [gr.update(visible=chosen == CENSORED)] * 2

    view.change(show, view, [style, section], api_visibility="private", show_progress="hidden")
    return [confidence, iou, most, shown, view, style, censored, policies]


def _classes(labels: list[str], value: list[str], elem_id: str) -> gr.CheckboxGroup:
    return gr.CheckboxGroup(
        sorted(labels), value=value, show_label=False, show_select_all=True, elem_id=elem_id, elem_classes="classes"
    )


def _settings(
    confidence: float,
    iou: float,
    most: float,
    shown: list[str],
    view: str,
    style: str,
    censored: list[str],
    policies: list[str],
) -> Settings:
    return Settings(confidence, iou, int(most), shown, view == CENSORED, drawing.Style(style), censored, policies)


def _files(viewer: Viewer, controls: list[Any]) -> None:
    with gr.Row(equal_height=True):
        file = gr.File(
            label="Picture or clip",
            file_types=sorted(PICTURE_SUFFIXES | VIDEO_SUFFIXES),
            height=150,
            scale=3,
            elem_id="file",
        )
        again = gr.Button("Look again", visible=False, scale=1, variant="primary", elem_id="again")
    headline = gr.HTML(elem_id="headline")
    with gr.Row():
        originals = gr.Image(label="Original", visible=False, buttons=["fullscreen"], elem_id="original")
        results = gr.Image(
            label="Result", visible=False, buttons=["download", "fullscreen"], format="jpeg", elem_id="result"
        )
    with gr.Row():
        clip = gr.Video(label="Original", visible=False, elem_id="original-clip")
        seen = gr.Video(label="Result", visible=False, elem_id="result-clip")
    with gr.Row():
        with gr.Column():
            steps = gr.HTML(visible=False, apply_default_css=False, elem_id="steps")
        with gr.Column():
            text = gr.Code(
                label="JSON", language="json", max_lines=18, visible=False, interactive=False, elem_id="json"
            )
    outputs = [headline, originals, results, clip, seen, steps, text, again]

    def show(view: View) -> list[Any]:
        pair = [view.original, view.result]
        media = [None, None, *pair] if view.is_clip else [*pair, None, None]
        below = [gr.update(value=value, visible=bool(value)) for value in (view.steps, view.text)]
        shown = [gr.update(value=value, visible=value is not None) for value in media]
        return [view.headline, *shown, *below, gr.update(visible=view.is_clip)]

    def look(path: str | None, *values: Any, progress: gr.Progress = gr.Progress()) -> list[Any]:  # noqa: B008
        if path is None:
            return show(View(""))
        if not views.is_clip(path):
            return show(viewer.picture(path, _settings(*values)))
        return show(viewer.clip(path, _settings(*values), lambda _, said: progress(None, desc=said)))

    def adjust(path: str | None, *values: Any) -> list[Any]:
        if path is None:
            return [gr.skip()] * len(outputs)
        if views.is_clip(path):  # a clip takes seconds: only when asked
            return [views.note("The settings have changed: look again.").headline, *[gr.skip()] * (len(outputs) - 1)]
        return show(viewer.picture(path, _settings(*values)))

    private: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": 2}
    gr.on([file.change, again.click], look, [file, *controls], outputs, show_progress_on=headline, **private)
    # While a slider moves, only its newest position counts.
    gr.on(
        [control.change for control in controls],
        adjust,
        [file, *controls],
        outputs,
        show_progress="hidden",
        trigger_mode="always_last",
        **private,
    )


def _camera(viewer: Viewer, controls: list[Any]) -> None:
    headline = gr.HTML(elem_id="camera-headline")
    with gr.Row():
        camera = gr.Image(
            sources=["webcam"], streaming=True, type="numpy", label="Camera", buttons=[], elem_id="camera"
        )
        result = gr.Image(label="Result", interactive=False, format="jpeg", buttons=[], elem_id="camera-result")
    steps = gr.HTML(apply_default_css=False)

    def look(pixels: np.ndarray | None, *values: Any) -> list[Any]:
        if pixels is None:
            return [gr.skip()] * 3
        view = viewer.camera(pixels, _settings(*values))
        return [view.headline, view.result, view.steps]

    camera.stream(
        look,
        [camera, *controls],
        [headline, result, steps],
        stream_every=CAMERA_INTERVAL,
        concurrency_limit=1,
        show_progress="hidden",
        api_visibility="private",
    )


@contextlib.contextmanager
def serving(page: gr.Blocks, port: int) -> Iterator[str]:
    """Serve the page on the loopback interface while the context lasts; gives its address.

    Raises:
        OSError: the port is taken.
    """
    _, address, _ = page.queue().launch(
        server_name=LOOPBACK,
        server_port=port,
        theme=THEME,
        css=CSS,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        ssr_mode=False,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        app_kwargs={
            "middleware": [
                Middleware(_OnlyFromHere),
                # Another site's name that resolves to this machine must not open the page.
                Middleware(TrustedHostMiddleware, allowed_hosts=[LOOPBACK, "localhost"]),
            ]
        },
    )
    try:
        yield address
    finally:
        page.close(verbose=False)


class _OnlyFromHere:
    """ASGI middleware: tells the browser to fetch nothing from elsewhere, whatever Gradio's pages ask for."""

    _HEADER = (
        b"content-security-policy",
        b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'; form-action 'self'",
    )

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_header(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), self._HEADER]
            await send(message)

        await self._app(scope, receive, send_with_header)
