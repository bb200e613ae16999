"""Streams without a model: sources, the newest-frame slot and its accounting, and what is written."""

import io
import json
import threading
import time

import av
import grpc
import numpy as np
import pytest
import simplejpeg
from PIL import Image

import clips
from helpers.cameras import mjpeg_camera, rtsp_camera
from helpers.scripted_triton import scripted_triton
from nudenet_client import Client, Detections, Parameters
from nudenet_tools.pictures.drawing import Style
from nudenet_tools.streams import outputs
from nudenet_tools.streams.runner import Counts, Served, Stream
from nudenet_tools.streams.source import Frame, Source, SourceError, file_stems, find

PARAMETERS = Parameters()


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """One second of 320x180 at 30 FPS: a.mp4 (H.264), m.avi (MJPEG), t.ts (transport stream)."""
    folder = tmp_path_factory.mktemp("clips")
    for name in ("a.mp4", "m.avi", "t.ts"):
        assert clips.write(folder / name, seconds=1, width=320, height=180) == 30
    return folder


def read(source, stop=None):
    return list(source.frames(stop or threading.Event()))


def accounted(counts):
    return counts.read == counts.served + counts.dropped + counts.failed


# --- sources ---


@pytest.mark.parametrize(("name", "passthrough"), [("a.mp4", False), ("m.avi", True), ("t.ts", False)])
def test_all_frames_of_a_file_with_their_times(clip_folder, name, passthrough):
    source = Source(str(clip_folder / name), paced=False)
    frames = read(source)
    assert [frame.number for frame in frames] == list(range(30))
    assert np.allclose([frame.time for frame in frames], np.arange(30) / 30, atol=0.002)
    assert source.passthrough is passthrough
    for frame in (frames[0], frames[-1]):
        assert simplejpeg.decode_jpeg(frame.jpeg(85)).shape == (180, 320, 3)


def test_mjpeg_is_passed_through_as_it_is(clip_folder):
    with av.open(str(clip_folder / "m.avi")) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    assert [frame.jpeg(1) for frame in read(Source(str(clip_folder / "m.avi"), paced=False))] == packets


def test_recordings_are_played_at_their_own_pace(clip_folder):
    frames = read(Source(str(clip_folder / "a.mp4")))
    assert np.allclose([frame.due - frames[0].due for frame in frames], [frame.time for frame in frames])


def test_turned_videos_are_sent_upright(clip_folder, tmp_path):
    turned = tmp_path / "turned.mp4"
    with av.open(str(clip_folder / "a.mp4")) as given, av.open(str(turned), "w") as target:
        stream = target.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    data = bytearray(turned.read_bytes())
    # The track header's matrix, 16.16 fixed point: a quarter turn, as phones write it.
    matrix = data.index(b"tkhd") + 4 + 40
    data[matrix : matrix + 36] = np.array([0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30], ">i4").tobytes()
    turned.write_bytes(data)
    upright, plain = (read(Source(str(path), paced=False))[0].jpeg(95) for path in (turned, clip_folder / "a.mp4"))
    stored, shown = simplejpeg.decode_jpeg(plain).astype(int), simplejpeg.decode_jpeg(upright).astype(int)
    assert shown.shape == (320, 180, 3)
    assert np.abs(np.rot90(stored, -1) - shown).mean() < 4  # clockwise, as the matrix says


def test_folders_give_their_videos_each_and_their_pictures_as_one(clip_folder, tmp_path):
    (tmp_path / "v.mp4").write_bytes((clip_folder / "a.mp4").read_bytes())
    for name in ("1.png", "2.png"):
        Image.new("RGB", (16, 16)).save(tmp_path / name)
    video, pictures = find(str(tmp_path), 10, False, {})
    assert video.name.endswith("v.mp4")
    frames = read(pictures)
    assert [frame.time for frame in frames] == [0.0, 0.1]
    assert frames[0].jpeg(85).startswith(b"\xff\xd8")


def test_live_cameras_over_http_and_rtsp(clip_folder):
    picture = simplejpeg.encode_jpeg(np.zeros((180, 320, 3), np.uint8))
    with mjpeg_camera(picture, 5, 100) as address:
        stop, frames = threading.Event(), []
        source = Source(address)
        for frame in source.frames(stop):  # hangs up after five and is opened again
            frames.append(frame)
            if len(frames) == 7:
                stop.set()
    assert source.passthrough
    assert source.reconnects == 1
    assert [frame.jpeg(1) for frame in frames] == [picture] * 7
    with rtsp_camera(clip_folder / "t.ts", 0.2) as address:
        frame = next(Source(address).frames(threading.Event()))
    assert simplejpeg.decode_jpeg(frame.jpeg(85)).shape == (180, 320, 3)


def test_unusable_sources_say_why(tmp_path):
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"text.mp4: Invalid data"):
        read(Source(str(tmp_path / "text.mp4")))
    with pytest.raises(SourceError, match=r"rtsp://127.0.0.1:1/live: Connection refused"):
        read(Source("rtsp://user:secret@127.0.0.1:1/live"))
    for name in ("empty", "none"):
        with pytest.raises(SourceError, match=name):
            find(str(tmp_path / name), 25, True, {})


def test_output_names_differ_and_keep_no_secrets():
    names = ["rtsp://user:p@ss@cam/live?key=1", "http://cam/live", "/a/x.mp4", "/b/x.avi"]
    assert file_stems([Source(name) for name in names]) == ["cam_live", "cam_live-2", "x", "x-2"]


# --- the slot ---


class Script:
    """A source of `count` frames, each when the test's `gate` lets it."""

    name = label = "script"
    reconnects = 0

    def __init__(self, count, gate=lambda number: None):
        self._count, self._gate = count, gate

    def frames(self, stop):
        for number in range(self._count):
            self._gate(number)
            if stop.is_set():
                return
            yield Frame(number, number / 30, time.monotonic(), b"picture%d" % number)


def run(source, behave, consumers=(), stop=None, **options):
    with scripted_triton(behave) as server, Client(server.url, retries=0, deadline=10) as client:
        stream = Stream(source, client, PARAMETERS, consumers, stop or threading.Event(), **options)
        stream.start()
        stream.join(30)
        assert not stream.running
    assert accounted(stream.counts)
    return stream


def test_newest_frame_wins():
    """While the server works on frame 0, frames 1 to 9 come: the answer must be for 9 next, 1 to 8 are dropped."""
    asked, released = threading.Event(), threading.Event()

    def behave(number, context):
        if number == 0:
            asked.set()
            released.wait(10)

    def gate(number):
        if number == 1:
            asked.wait(10)
        if number == 10:
            released.set()
            served.wait(10)

    served = threading.Event()
    got = []

    def consume(answer):
        got.append(answer.frame.number)
        if len(got) == 2:
            served.set()

    stream = run(Script(11, gate), behave, [consume], in_flight=1)
    assert got == [0, 9, 10]
    assert (stream.counts.read, stream.counts.served, stream.counts.dropped) == (11, 3, 8)


def test_failed_frames_are_told_in_the_order_of_the_others():
    told = []

    def behave(number, context):
        time.sleep(0.01 * (number % 3))
        if number % 4 == 1:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "as told")

    stream = run(
        Script(20),
        behave,
        [lambda answer: told.append((answer.frame.number, ""))],
        every_frame=True,
        in_flight=3,
        on_failure=lambda failed: told.append((failed.frame.number, failed.reason)),
    )
    assert [number for number, _ in told] == list(range(20))
    reasons = [reason for _, reason in told if reason]
    assert (len(reasons), stream.counts.failed) == (5, 5)
    assert all("as told" in reason for reason in reasons)


def test_every_frame_is_served_where_asked_for():
    got = []
    stream = run(
        Script(40), lambda *_: time.sleep(0.002), [lambda answer: got.append(answer.frame.number)], every_frame=True
    )
    assert got == list(range(40))
    assert stream.counts.served == 40


def test_answers_keep_the_order_of_the_frames():
    def behave(number, context):
        time.sleep(0.02 if number % 2 == 0 else 0)  # every other one is overtaken

    got = []
    run(Script(20), behave, [lambda answer: got.append(answer.frame.number)], every_frame=True, in_flight=2)
    assert got == list(range(20))


def test_failures_are_counted_and_the_rest_goes_on():
    def behave(number, context):
        if number % 2:
            context.abort(grpc.StatusCode.UNAVAILABLE, "queue is full")

    stream = run(Script(20), behave, every_frame=True)
    assert (stream.counts.served, stream.counts.failed) == (10, 10)
    assert "queue is full" in stream.counts.reason
    assert stream.error == ""


def test_a_stopped_stream_accounts_for_what_it_has_read():
    stop = threading.Event()

    def gate(number):
        if number == 50:
            stop.set()

    stream = run(Script(10**6, gate), lambda *_: time.sleep(0.005), stop=stop)
    assert stream.counts.read <= 51


def test_a_full_disk_ends_only_this_stream():
    def consume(answer):
        if answer.frame.number >= 5:
            raise OSError(28, "No space left on device")

    stream = run(Script(10**6), lambda *_: None, [consume], every_frame=True)
    assert "No space left" in stream.error


def test_a_source_that_breaks_is_said():
    def gate(number):
        if number == 5:
            raise SourceError("script: gone")

    stream = run(Script(10, gate), lambda *_: None)
    assert stream.error == "script: gone"
    assert stream.counts.read == 5


def test_percentiles():
    counts = Counts()
    assert np.isnan(counts.latency_ms(50))
    counts.latencies.extend([0.01, 0.02, 0.03])
    assert counts.latency_ms(50) == pytest.approx(20)


# --- outputs ---


def served(number, seconds, boxes, labels, shape=(90, 160)):
    """A white frame with detections."""
    rows = np.array([[*box, i, 0.5] for i, box in enumerate(boxes)], np.float32).reshape(-1, 6)
    jpeg = simplejpeg.encode_jpeg(np.full((*shape, 3), 255, np.uint8))
    found = Detections.from_rows(rows, labels, (shape[1], shape[0]))
    return Served(Frame(number, seconds, 0.0, jpeg), jpeg, found, 0.0125)


BOX = (40, 20, 100, 70)
LEFT = (8, 8, 32, 32)


def play(path):
    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray(format="rgb24").astype(int)) for frame in container.decode(video=0)]


def is_black(pixels, box):
    x1, y1, x2, y2 = box
    return pixels[y1 + 8 : y2 - 8, x1 + 8 : x2 - 8].max() < 40


def test_json_lines():
    file = io.StringIO()
    write = outputs.JsonLines(file, "cam", threading.Lock(), {"FACE_MALE"})
    write(served(7, 0.25, [BOX, LEFT], ["FACE_MALE", "FACE_FEMALE"]))
    line = json.loads(file.getvalue())
    assert (line["source"], line["frame"], line["time"], line["latency_ms"]) == ("cam", 7, 0.25, 12.5)
    assert (line["width"], line["height"]) == (160, 90)
    assert [found["label"] for found in line["detections"]] == ["FACE_MALE"]


def test_videos_hold_served_frames_at_their_times(tmp_path):
    video = outputs.AnnotatedVideo(tmp_path / "below" / "a.mp4", None)
    times = [0.0, 0.1, 0.5, 1.25]  # what lies between was dropped
    for i, seconds in enumerate(times):
        video(served(i, seconds, [BOX] if i == 2 else [], ["FACE_MALE"] if i == 2 else []))
    video.close()
    frames = play(tmp_path / "below" / "a.mp4")
    assert np.allclose([seconds for seconds, _ in frames], times, atol=0.001)
    drawn = [pixels.min() < 200 for _, pixels in frames]
    assert drawn == [False, False, True, False]


def test_censored_areas_outlast_a_miss(tmp_path):
    video = outputs.CensoredVideo(tmp_path / "c.mp4", {"A"}, Style.fill, hold=0.5)
    video(served(0, 0.0, [BOX, LEFT], ["A", "B"]))
    video(served(1, 0.4, [], []))  # missed
    video(served(2, 0.9, [], []))  # gone
    video.close()
    (_, first), (_, missed), (_, gone) = play(tmp_path / "c.mp4")
    assert is_black(first, BOX)
    assert is_black(missed, BOX)
    assert gone.min() > 200
    assert not is_black(first, LEFT)  # of a class that is not to be censored


def test_a_source_may_change_its_size_and_be_odd(tmp_path):
    video = outputs.CensoredVideo(tmp_path / "c.mp4", {"A"}, Style.blur, hold=0)
    for i, shape in enumerate([(91, 161), (91, 161), (180, 320)]):
        video(served(i, i / 10, [], [], shape))
    video.close()
    assert [pixels.shape for _, pixels in play(tmp_path / "c.mp4")] == [(90, 160, 3)] * 3


def test_events_are_sorted_subtitles(tmp_path):
    events = outputs.Events(tmp_path / "e.srt", None, gap=1.0)
    for i, seconds in enumerate(np.arange(0, 6, 0.5)):
        labels = ["LONG"] + (["SHORT"] if 1 <= seconds <= 2 or seconds == 5 else [])
        events(served(i, float(seconds), [BOX] * len(labels), labels))
    events.close()
    assert (tmp_path / "e.srt").read_text() == (
        "1\n00:00:00,000 --> 00:00:05,500\nLONG 0.50\n\n"
        "2\n00:00:01,000 --> 00:00:02,000\nSHORT 0.50\n\n"
        "3\n00:00:05,000 --> 00:00:05,040\nSHORT 0.50\n\n"
    )
