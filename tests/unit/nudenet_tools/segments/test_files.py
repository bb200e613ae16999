"""One video without a server: which frames are asked about, stops, kills, refusals."""

import dataclasses
import http.server
import json
import threading
from fractions import Fraction

import av
import numpy as np
import pytest
import simplejpeg

from nudenet_client import Detections, Parameters, ServerUnavailable
from nudenet_tools.segments.files import Settings, analyse
from nudenet_tools.streams.source import Source, SourceError


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """60 pictures, all different, at 25 FPS."""
    path = tmp_path_factory.mktemp("segments") / "m.mjpeg"
    pictures = np.random.default_rng(19).integers(0, 255, (60, 32, 32, 3), np.uint8)
    path.write_bytes(b"".join(simplejpeg.encode_jpeg(picture) for picture in pictures))
    return path


class Scripted:
    """In place of a client: finds FACE in the frames `found`, in the order of the clip; fails before frame `fails`."""

    def __init__(self, clip, found, fails=None, block=None, stop=None):
        frames = Source(str(clip), paced=False).frames(threading.Event())
        self.numbers = {frame.jpeg(85): frame.number for frame in frames}
        self.found, self.fails, self.block, self.stop, self.asked = found, fails, block, stop, []

    def detect_many(self, pictures, parameters, on_error):
        assert on_error == "report"
        for picture in pictures:
            number = self.numbers[picture]
            if number == self.fails:
                raise ServerUnavailable("gone")
            if self.stop and number == self.stop[0]:
                self.stop[1].set()
            self.asked.append(number)
            rows = np.array([[0, 0, 9, 9, 0, 0.5]] if number in self.found else [], np.float32).reshape(-1, 6)
            verdict = "" if self.block is None else "block" if number >= self.block else "allow"
            found = Detections.from_rows(rows, ["FACE"] * len(rows), (320, 180))
            yield Detections(found.boxes, found.confidences, found.class_ids, found.labels, 320, 180, None, verdict, {})


def run(client, clip, result, stop=None, **options):
    settings = Settings(Parameters(), gap=0.1, **options)
    return analyse(client, Source(str(clip), paced=False), settings, result, stop or threading.Event())


FOUND = {5, 6, 7, 20, 21, 40}


def test_every_third_frame(clip, tmp_path):
    client = Scripted(clip, FOUND)
    answer = run(client, clip, tmp_path / "r.json", every=3)
    assert client.asked == list(range(0, 60, 3))
    assert answer == json.loads((tmp_path / "r.json").read_text())
    assert answer["complete"]
    assert answer["frames"] == {"analysed": 20, "failed": 0, "last": 57}
    assert [(one["start"], one["end"], one["best"]["frame"]) for one in answer["segments"]] == [
        (0.24, 0.24, 6),
        (0.84, 0.84, 21),
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_after_a_failure_and_a_stop_it_goes_on_and_the_result_is_the_same(clip, tmp_path):
    whole = run(Scripted(clip, FOUND), clip, tmp_path / "whole.json")
    assert [one["frames"] for one in whole["segments"]] == [3, 2, 1]
    first = Scripted(clip, FOUND, fails=6)
    with pytest.raises(ServerUnavailable):
        run(first, clip, tmp_path / "r.json")
    stop = threading.Event()
    second = Scripted(clip, FOUND, stop=(21, stop))
    assert not run(second, clip, tmp_path / "r.json", stop)["complete"]
    third = Scripted(clip, FOUND)
    assert run(third, clip, tmp_path / "r.json") == whole
    assert first.asked + second.asked + third.asked == list(range(60))


def test_other_settings_begin_anew(clip, tmp_path):
    with pytest.raises(ServerUnavailable):
        run(Scripted(clip, FOUND, fails=30), clip, tmp_path / "r.json")
    client = Scripted(clip, FOUND)
    run(client, clip, tmp_path / "r.json", quality=90)
    assert client.asked == list(range(60))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"identity": 1}', "IDENTITY"])
def test_a_damaged_partial_file_begins_anew(clip, tmp_path, text):
    partial = tmp_path / "r.partial.json"
    if text == "IDENTITY":  # as of a version that keeps something else
        with pytest.raises(ServerUnavailable):
            run(Scripted(clip, FOUND, fails=30), clip, tmp_path / "r.json")
        text = partial.read_text().replace('"analysed"', '"looked_at"')
    partial.write_text(text)
    client = Scripted(clip, FOUND)
    assert run(client, clip, tmp_path / "r.json")["complete"]
    assert client.asked == list(range(60))


def write(path, milliseconds):
    """A clip of noise whose frames have these time stamps."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for stamp in milliseconds:
            noise = np.random.default_rng(stamp % 1000).integers(0, 255, (64, 64, 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(noise, format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


class Finds:
    """In place of a client: finds FACE in every frame."""

    def detect_many(self, pictures, parameters, on_error):
        for picture in pictures:
            if not picture:
                yield parameters.failed("cannot be decoded")
                continue
            rows = np.array([[0, 0, 9, 9, 0, 0.5]], np.float32)
            yield dataclasses.replace(Detections.from_rows(rows, ["FACE"], (64, 64)), verdict="allow")


@pytest.mark.parametrize(
    ("name", "stamps", "segments"),
    [
        ("one.mp4", [0], [(0.0, 0.0, 1)]),
        ("late.mkv", [5000], [(0.0, 0.0, 1)]),
        ("variable.mkv", [0, 40, 80, 500, 540, 3000, 3040], [(0.0, 0.54, 5), (3.0, 3.04, 2)]),
        ("variable.mp4", [0, 40, 80, 500, 540, 3000, 3040], [(0.0, 0.54, 5), (3.0, 3.04, 2)]),
        ("jump.mkv", [0, 40, 80, 100_000, 100_040], [(0.0, 0.16, 5)]),  # of the stamps, not of the picture
        ("negative.mkv", [-200, -160, 0], [(0.0, 0.2, 3)]),
    ],
)
def test_odd_clips(tmp_path, name, stamps, segments):
    write(tmp_path / name, stamps)
    answer = analyse(
        Finds(), Source(str(tmp_path / name), paced=False), Settings(Parameters()), tmp_path / "r", threading.Event()
    )
    assert [(one["start"], one["end"], one["frames"]) for one in answer["segments"]] == segments
    assert answer["frames"] == {"analysed": len(stamps), "failed": 0, "last": len(stamps) - 1}


def test_two_recordings_in_one_file_go_on_where_the_first_ends(tmp_path):
    for name in ("a.ts", "b.ts"):
        write(tmp_path / name, [0, 40, 80, 120])
    (tmp_path / "both.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    source = Source(str(tmp_path / "both.ts"), paced=False)
    (one,) = analyse(Finds(), source, Settings(Parameters()), tmp_path / "r", threading.Event())["segments"]
    assert (one["start"], one["end"], one["frames"]) == (0.0, 0.28, 8)


@pytest.mark.parametrize("name", ["cut.mkv", "cut.ts"])
def test_a_file_that_was_cut_off_is_what_players_show_of_it(tmp_path, name):
    write(tmp_path / name, range(0, 4000, 40))
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-20_000])
    answer = analyse(
        Finds(), Source(str(tmp_path / name), paced=False), Settings(Parameters()), tmp_path / "r", threading.Event()
    )
    assert answer["complete"]
    assert 10 < answer["frames"]["analysed"] < 100
    assert answer["duration"] < 3.9


def test_an_address_that_breaks_off_leaves_no_result(tmp_path):
    """It has more than came: what was not looked at is not called complete."""
    write(tmp_path / "clip.mkv", range(0, 4000, 40))
    data = (tmp_path / "clip.mkv").read_bytes()

    class Half(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Half) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        source = Source(f"http://127.0.0.1:{server.server_port}/clip.mkv", paced=False)
        with pytest.raises(SourceError, match="Input/output error"):
            analyse(Finds(), source, Settings(Parameters()), tmp_path / "r.json", threading.Event())
        server.shutdown()
    assert not (tmp_path / "r.json").exists()
    assert json.loads((tmp_path / "r.partial.json").read_text())["merged"]["analysed"] > 10


def test_it_ends_at_the_first_block_where_asked(clip, tmp_path):
    answer = run(Scripted(clip, FOUND, block=12), clip, tmp_path / "r.json", stop_at_block=True)
    assert (answer["complete"], answer["stopped_at_block"], answer["verdict"]) == (True, True, "block")
    assert answer["frames"]["last"] == 12
    assert run(Scripted(clip, FOUND, block=12), clip, tmp_path / "all.json")["frames"]["last"] == 59
