"""The page in a real browser, in front of the real server."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import av
import numpy as np
import psutil
import pytest
from PIL import Image
from playwright.sync_api import expect

import clips
import helpers.browser
from nudenet_client import Client
from nudenet_tools import ROOT
from nudenet_tools.ui.views import Settings, Viewer

SCREENSHOT = ROOT / "out" / "ui.png"  # docs/ui.png is a copy of it
FACE = (slice(180, 380), slice(450, 670))  # rows and columns inside the face on the bundled picture
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --use-fake-device-for-media-stream --use-fake-ui-for-media-stream"
)
SECONDS = 15_000  # milliseconds that the page may take for anything; two cores serve all of this

expect.set_options(timeout=SECONDS)


def write_doubtful(target):
    """Half a second of a face, half a second of a cup that the network takes for something else; 10 FPS."""
    with av.open(str(target), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast", "crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 540, 360, "yuv420p"
        for name in ["astronaut_720p.jpg"] * 5 + ["coffee.jpg"] * 5:
            with Image.open(ROOT / "tests" / "data" / name) as opened:
                picture = opened.convert("RGB").resize((540, 360))
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Clips and broken files, and where the page keeps what is dropped on it."""
    folder = tmp_path_factory.mktemp("ui")
    clips.write(folder / "clip.mp4", seconds=0.5, fps=10)
    write_doubtful(folder / "doubtful.mp4")
    clips.write(folder / "camera.mjpeg", seconds=1, fps=10, width=640, height=360)
    (folder / "text.jpg").write_text("hello")
    (folder / "tmp").mkdir()
    return folder


@pytest.fixture(scope="module")
def page_server(server, folder):
    """tools/ui.py as a person runs it: its process and address."""
    command = [sys.executable, ROOT / "tools" / "ui.py", "--url", server.grpc_url, "--http-url", server.http_url]
    environment = os.environ | {"TMPDIR": str(folder / "tmp")}
    process = subprocess.Popen([*command, "--port", "0"], stderr=subprocess.PIPE, text=True, env=environment)
    said = ""
    while "http://" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    yield process, re.search(r"http://\S+?(?=/?\s)", said).group()
    process.terminate()
    process.wait(20)


@pytest.fixture(scope="module")
def browser(folder, page_server):
    """The system's browser with a fresh profile and a clip for a camera; `requested` has all it asked for."""
    flags = [*FLAGS.split(), f"--use-file-for-fake-video-capture={folder / 'camera.mjpeg'}"]
    with helpers.browser.playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            folder / "profile",
            executable_path=helpers.browser.program(),
            args=flags,
            viewport={"width": 1440, "height": 900},
        )
        context.requested = []
        context.on("request", lambda request: context.requested.append(request.url))  # type: ignore[call-overload]
        context.set_default_timeout(SECONDS)
        yield context
        context.close()


@pytest.fixture
def page(browser, page_server):
    page = browser.new_page()
    page.goto(page_server[1])
    expect(page.get_by_text("Triton 2.51.0 at")).to_be_visible()
    yield page
    page.close()


def drop(page, path):
    page.set_input_files("#file input[type=file]", path)


def expect_count(page, count):
    expect(page.locator("#headline [data-count]")).to_have_attribute("data-count", re.compile(f"^{count}$"))


def set_confidence(page, value):
    field = page.locator("#confidence input[type=number]")
    field.fill(str(value))
    field.press("Enter")


def pixels(page, name):
    """What one of the pictures on the page shows, int [h,w,3]."""
    expect(page.locator(f"#{name} img")).to_be_visible()
    data = page.request.get(page.locator(f"#{name} img").get_attribute("src")).body()
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


@pytest.mark.needs("chromium")
def test_a_picture_shows_boxes_times_and_json(page, server, astronaut):
    with Client(server.grpc_url) as client:
        expected = client.detect(astronaut).to_dict("astronaut_720p.jpg")
    drop(page, clips.PICTURE)
    expect_count(page, 1)
    expect(page.locator("#headline")).to_contain_text("FACE_FEMALE")
    original, result = pixels(page, "original"), pixels(page, "result")
    assert original.shape == result.shape == (720, 1280, 3)
    difference = np.abs(original - result).max(axis=2)
    assert (difference[200:350, 425:435] > 40).any(axis=1).all()  # the left side of the box
    assert difference[500:].max() < 60
    for step in ("decode", "detect", "NMS"):
        row = page.locator("#steps tr", has_text=step)
        assert float(row.locator("td").last.inner_text().removesuffix(" ms")) > 0
    shown = page.locator("#json .cm-content").inner_text()
    assert json.loads(shown) == expected
    SCREENSHOT.parent.mkdir(exist_ok=True)
    with Image.open(io.BytesIO(page.screenshot())) as shot:
        shot.convert("RGB").quantize(256).save(SCREENSHOT, optimize=True)


@pytest.mark.needs("chromium")
def test_a_slider_changes_the_count(page):
    drop(page, clips.PICTURE)
    expect_count(page, 1)
    set_confidence(page, 0.99)
    expect_count(page, 0)
    set_confidence(page, 0.01)
    expect_count(page, "[2-9]")
    slider = page.locator("#confidence input[type=range]")
    slider.press("End")
    expect_count(page, 0)


@pytest.mark.needs("chromium")
def test_a_hidden_class_is_neither_drawn_nor_counted(page):
    drop(page, clips.PICTURE)
    expect_count(page, 1)
    page.get_by_text("Classes to show").click()
    page.locator("#shown").get_by_label("FACE_FEMALE").uncheck()
    expect_count(page, 0)
    expect(page.locator("#headline")).to_contain_text("and 1 hidden")
    assert np.abs(pixels(page, "original") - pixels(page, "result")).mean() < 3  # two JPEGs of the same pixels


@pytest.mark.needs("chromium")
def test_the_censored_view_hides_the_chosen_class(page):
    drop(page, clips.PICTURE)
    expect_count(page, 1)
    page.get_by_label("censored").check()
    expect(page.locator("#headline")).to_contain_text("0 censored")
    page.locator("#censored").get_by_label("FACE_FEMALE").check()
    expect(page.locator("#headline")).to_contain_text("1 censored")
    page.get_by_label("fill").check()
    for _ in range(50):  # the headline does not tell when the filled picture is there
        result = pixels(page, "result")
        if result[FACE].max() < 12:
            break
        page.wait_for_timeout(100)
    assert result[FACE].max() < 12
    original = pixels(page, "original")
    assert original[FACE].mean() > 60
    assert np.abs(original - result)[500:].mean() < 3


@pytest.mark.needs("chromium")
def test_policies_are_tried_side_by_side(page):
    drop(page, clips.PICTURE)
    expect_count(page, 1)
    for name in ("strict", "lenient"):
        page.locator("#policies").get_by_label(name).check()
    for name in ("strict", "lenient"):
        expect(page.locator(f'#headline [data-policy="{name}"] .verdict')).to_have_text("allow")
    for name in ("strict", "lenient"):
        page.locator("#policies").get_by_label(name).uncheck()
    expect(page.locator("#headline .verdict")).to_have_count(0)


@pytest.mark.needs("chromium")
def test_a_broken_file_shows_the_servers_reason(page, folder, astronaut):
    (folder / "broken.jpg").write_bytes(astronaut[:9000])
    drop(page, folder / "broken.jpg")
    expect(page.locator("#headline .failed")).to_contain_text("truncated JPEG: its 9000 bytes have no end marker")
    expect(page.locator("#result img")).to_be_hidden()
    page.get_by_label("Clear").click()
    expect(page.locator("#headline .failed")).to_be_hidden()
    drop(page, folder / "text.jpg")
    expect(page.locator("#headline .failed")).to_contain_text("not a JPEG")
    page.get_by_label("Clear").click()
    drop(page, clips.PICTURE)  # and the next one is looked at
    expect_count(page, 1)


@pytest.mark.needs("chromium")
def test_a_clip_plays_beside_the_original(page, folder):
    drop(page, folder / "clip.mp4")
    expect(page.locator("#headline")).to_contain_text("clip.mp4, 5 frames")
    for name in ("original-clip", "result-clip"):
        video = page.locator(f"#{name} video")
        expect(video).to_be_visible()
        video.evaluate("v => v.readyState >= 2 || new Promise(done => v.addEventListener('loadeddata', done))")
        assert video.evaluate("v => [v.videoWidth, v.videoHeight]") == [1280, 720]
    expect(page.locator("#headline .chip")).to_have_text(["FACE_FEMALE × 5"])
    set_confidence(page, 0.99)
    expect(page.locator("#headline")).to_contain_text("The settings have changed: look again.")
    page.locator("#again").click()
    expect_count(page, 0)


@pytest.mark.needs("chromium")
def test_a_clip_is_judged_frame_by_frame(page, folder):
    for name in ("strict", "lenient"):
        page.locator("#policies").get_by_label(name).check()
    drop(page, folder / "doubtful.mp4")
    strict = page.locator('#headline [data-policy="strict"]')
    expect(strict.locator(".verdict")).to_have_text("review")
    expect(strict).to_contain_text("from 0.50 s")
    expect(strict.locator("li")).to_contain_text(
        re.compile(r"review 0.50 to 0.90 s, 5 frames: BUTTOCKS_EXPOSED 0\.\d\d")
    )
    expect(page.locator('#headline [data-policy="lenient"] .verdict')).to_have_text("allow")
    shown = json.loads(page.locator("#json .cm-content").inner_text())
    assert {name: (said["verdict"], said["begins"]) for name, said in shown["verdicts"].items()} == {
        "strict": ("review", 0.5),
        "lenient": ("allow", None),
    }
    frames = {frame["frame"]: frame["verdicts"] for frame in shown["found"]}
    assert sorted(frames) == list(range(10))  # faces, then reviews
    for number, said in frames.items():
        assert said["lenient"] == {"verdict": "allow", "findings": []}
        assert said["strict"]["verdict"] == ("allow" if number < 5 else "review")
        assert [one["class"] for one in said["strict"]["findings"]] == ["BUTTOCKS_EXPOSED"] * (number >= 5)
    # In the result each frame says it, too: the background of the first line is green, then amber.
    video = page.locator("#result-clip video")
    look = """(video, seconds) => new Promise(done => {
        video.onseeked = () => {
            const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight).getContext("2d");
            canvas.drawImage(video, 0, 0);
            done([...canvas.getImageData(1, 1, 1, 1).data.slice(0, 3)]);
        };
        video.pause();
        video.currentTime = seconds;
    })"""
    for seconds, colour in ((0.25, (21, 128, 61)), (0.75, (180, 83, 9))):
        assert np.abs(np.subtract(video.evaluate(look, seconds), colour)).max() < 40
    for name in ("strict", "lenient"):
        page.locator("#policies").get_by_label(name).uncheck()
    page.locator("#again").click()
    expect(page.locator("#headline .verdict")).to_have_count(0)


@pytest.mark.needs("chromium")
def test_the_camera_is_looked_at_live(page):
    page.get_by_role("tab", name="Camera").click()
    page.get_by_text("Click to Access Webcam").click()
    page.get_by_text("Record").click()
    expect(page.locator("#camera-headline")).to_contain_text("FACE_FEMALE")
    expect(page.locator("#camera-result img")).to_be_visible()


@pytest.mark.needs("chromium")
def test_nothing_is_fetched_from_elsewhere_and_nobody_else_gets_in(page, browser, page_server, server):
    process, address = page_server
    drop(page, clips.PICTURE)
    expect_count(page, 1)
    assert len(browser.requested) > 20
    assert [url for url in browser.requested if not url.startswith((address, "data:", "blob:", "about:"))] == []
    listening = [c.laddr.ip for c in psutil.Process(process.pid).net_connections() if c.status == "LISTEN"]
    assert set(listening) == {"127.0.0.1"}
    foreign = urllib.request.Request(address, headers={"Host": "elsewhere.example"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(foreign)
    elsewhere = f"fetch('http://{server.http_url}/v2', {{mode: 'no-cors'}}).then(() => 'fetched', error => '' + error)"
    assert "Failed to fetch" in page.evaluate(elsewhere)


def test_a_frame_that_is_refused_is_no_allowed_one(server, tmp_path):
    """The third picture's second half was overwritten; all others show a face."""
    clips.write(tmp_path / "clip.mjpeg", seconds=0.5, fps=10, width=640, height=360)
    data = (tmp_path / "clip.mjpeg").read_bytes()
    starts = [found.start() for found in re.finditer(rb"\xff\xd8\xff", data)]
    assert len(starts) == 5
    middle = (starts[2] + starts[3]) // 2
    (tmp_path / "clip.mjpeg").write_bytes(
        data[:middle] + bytes(starts[3] - 2 - middle) + b"\xff\xd9" + data[starts[3] :]
    )
    viewer = Viewer(server.grpc_url, server.http_url, tmp_path)
    view = viewer.clip(str(tmp_path / "clip.mjpeg"), Settings(policies=["lenient", "strict"]), lambda *_: None)
    viewer.close()
    answer = json.loads(view.text)
    for policy in ("lenient", "strict"):
        assert (answer["verdicts"][policy]["verdict"], answer["verdicts"][policy]["begins"]) == ("error", 0.08)
        assert f'data-policy="{policy}">{policy} <b class="verdict error">error</b> from 0.08 s' in view.headline
    (refused,) = answer["found"]  # nothing is to be shown of the others
    assert (refused["frame"], refused["verdicts"]["strict"]) == (2, {"verdict": "error", "findings": []})
    assert "damaged JPEG" in refused["error"]
    assert "1 frames failed: damaged JPEG" in view.headline


def test_without_a_server_the_page_says_so(tmp_path):
    viewer = Viewer("127.0.0.1:1", "127.0.0.1:1", tmp_path)
    assert "127.0.0.1:1: Connection refused" in viewer.picture(str(clips.PICTURE), Settings()).headline
    viewer.close()


def test_a_taken_port_is_named(server):
    command = [sys.executable, ROOT / "tools" / "ui.py", "--url", server.grpc_url, "--port", str(server.ports.http)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith(f"ui: port {server.ports.http} cannot be used")


def test_the_picture_in_the_documents_is_one():
    with Image.open(ROOT / "docs" / "ui.png") as picture:
        assert picture.size == (1440, 900)
    assert (ROOT / "docs" / "ui.png").stat().st_size < 300_000


@pytest.mark.needs("chromium")
def test_what_was_dropped_goes_with_the_process(page, page_server, folder):
    """The last one with a browser: it ends the page's server."""
    drop(page, clips.PICTURE)
    expect_count(page, 1)
    assert list((folder / "tmp").rglob("astronaut_720p.jpg"))
    process, _ = page_server
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    assert [path for path in (folder / "tmp").rglob("*") if path.is_file()] == []
