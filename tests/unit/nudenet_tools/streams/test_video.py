"""Videos as players show them, and as far as they can be read."""

from __future__ import annotations

import threading
from fractions import Fraction

import av
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from helpers import recordings
from helpers.cameras import serving_http
from helpers.hostile import encode, photo, with_exif_orientation
from nudenet_client import PictureError
from nudenet_client.pictures import upright_pixels
from nudenet_tools.streams import shape
from nudenet_tools.streams.source import Source, SourceError, find

PIXELS = np.asarray(photo(96, 64))


def read(path, **options):
    return list(Source(str(path), paced=False, **options).frames(threading.Event()))


def shown(path):
    return simplejpeg.decode_jpeg(read(path)[0].jpeg(95)).astype(int)


# --- shape ---


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.mp4", "a.mov"], ids=["H.264", "MJPEG"])
def test_turns_and_flips_are_those_of_exif(tmp_path, name, orientation):
    """Chromium plays all sixteen files the same way."""
    path = recordings.with_matrix(recordings.record(tmp_path / name, PIXELS, 2), orientation)
    expected = upright_pixels(with_exif_orientation(encode(photo(96, 64), quality=95), orientation))
    assert shown(path).shape == expected.shape
    assert np.abs(shown(path) - expected).mean() < 4


@pytest.mark.parametrize(("aspect", "size"), [(Fraction(2), (192, 64)), (Fraction(1, 2), (96, 128)), (None, (96, 64))])
@pytest.mark.parametrize("name", ["a.mp4", "a.avi"], ids=["H.264", "MJPEG"])
def test_pixels_are_made_square(tmp_path, name, aspect, size):
    path = recordings.record(tmp_path / name, PIXELS, 2, pixel_aspect=aspect)
    assert shown(path).shape == (size[1], size[0], 3)
    source = Source(str(path), paced=False)
    next(source.frames(threading.Event()))
    assert source.passthrough == (name == "a.avi" and aspect is None)


def test_impossible_pixels_are_taken_for_square():
    frame = av.VideoFrame.from_ndarray(PIXELS, format="rgb24")
    for aspect in (Fraction(5), Fraction(1, 5), Fraction(0), None):
        assert shape.pixels(frame, aspect).shape == (64, 96, 3)
        assert shape.is_plain(frame, aspect)
    assert shape.pixels(frame, Fraction(4)).shape == (64, 384, 3)
    assert not shape.is_plain(frame, Fraction(4))


def test_a_matrix_that_is_not_quite_a_turn_is_the_nearest():
    assert shape.turn(np.array([3, -60, 0, 70, 2], np.int32)) == (True, False, True)
    assert shape.turn(np.array([-60, 3, 0, 2, 70], np.int32)) == (False, True, False)
    assert shape.turn(np.zeros(9, np.int32)) == shape.PLAIN


# --- what can be read ---


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_what_lives_in_the_alpha_channel_is_shown_on_white(tmp_path, codec):
    """FFmpeg's own decoders leave the alpha of WebM out: black, where players show a picture."""
    alpha = np.asarray(photo(96, 64, "L"))
    recordings.record_alpha(tmp_path / "a.webm", alpha, 3, codec)
    frames = read(tmp_path / "a.webm")
    assert len(frames) == 3
    assert np.abs(shown(tmp_path / "a.webm").mean(2) - (255 - alpha)).mean() < 8


def test_transparent_pixels_of_a_gif_are_white(tmp_path):
    frames = [Image.new("P", (96, 64), number) for number in (0, 1)]
    for frame in frames:
        frame.putpalette(bytes([0, 0, 0, 200, 0, 0]))
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], transparency=0, disposal=2)
    assert shown(tmp_path / "a.gif").min() > 250


def test_jumps_of_the_clock_do_not_stop_the_picture(tmp_path):
    stamps = [0, 0.1, 0.2, 3600, 3600.1, 90000, 90000.1]
    times = [frame.time for frame in read(recordings.record(tmp_path / "a.mkv", PIXELS, 7, stamps=stamps))]
    assert np.allclose(times, [0, 0.1, 0.2, 0.233, 0.333, 0.367, 0.467], atol=0.002)
    early = recordings.record(tmp_path / "early.ts", PIXELS, 5)
    late = recordings.record(tmp_path / "late.ts", PIXELS, 5, stamps=[5000 + i / 30 for i in range(5)])
    for first, second in ((early, late), (late, early)):
        joined = tmp_path / "joined.ts"
        joined.write_bytes(first.read_bytes() + second.read_bytes())
        times = [frame.time for frame in read(joined)]
        assert len(times) == 10
        assert times == sorted(times)
        assert times[-1] < 0.5


def test_an_undecodable_packet_costs_its_own_frame_only(tmp_path):
    path = recordings.with_hole(recordings.record(tmp_path / "a.mp4", PIXELS, 60), 20)
    frames = read(path)
    bad = [frame for frame in frames if isinstance(frame.content, PictureError)]
    assert (len(frames), len(bad)) == (60, 1)
    assert np.allclose([frame.time for frame in frames], np.arange(60) / 30, atol=0.05)
    with pytest.raises(PictureError, match="a packet of the video cannot be decoded: Invalid data"):
        bad[0].jpeg(85)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_cover_art_is_no_video(tmp_path, name):
    assert len(read(recordings.record(tmp_path / name, PIXELS, 10, cover=True))) == 10
    assert shown(tmp_path / name).shape == (64, 96, 3)


def test_music_with_a_cover_is_no_video(tmp_path):
    path = recordings.record_sound(tmp_path / "song.m4a")
    with pytest.raises(SourceError, match=r"song.m4a: only a cover picture, no video in it"):
        read(path)


def test_a_file_without_frames_says_so(tmp_path):
    path = recordings.record(tmp_path / "a.mkv", PIXELS, 1)
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"\x1f\x43\xb6\x75")])  # before the first cluster
    with pytest.raises(SourceError, match=r"a.mkv: "):
        read(path)


# --- names ---


@pytest.mark.parametrize("name", ["cam:1.mp4", "http:x.mp4", "a%03d.mp4", "caf\udce9.mp4", "a b\n.mp4", "-i.mp4"])
def test_odd_names_are_names(tmp_path, name, monkeypatch):
    recordings.record(tmp_path / name, PIXELS, 2)
    monkeypatch.chdir(tmp_path)
    (source,) = find(name, 25, False, {})
    assert len(list(source.frames(threading.Event()))) == 2
    source.label.encode()


def test_folders_leave_nothing_out_without_a_word(tmp_path):
    for name in ("a.gif", "b.avif", "picture", "notes.txt", "c.MP4"):
        (tmp_path / name).touch()
    photo(96, 64).save(tmp_path / "b.avif")
    photo(96, 64).save(tmp_path / "picture", "PNG")
    more = [photo(96, 64).rotate(angle) for angle in (90, 180, 270)]
    photo(96, 64).save(tmp_path / "a.gif", save_all=True, append_images=more, duration=100)
    recordings.record(tmp_path / "c.MP4", PIXELS, 2)
    said = []
    sources = find(str(tmp_path), 25, False, {}, said.append)
    assert [len(list(source.frames(threading.Event()))) for source in sources] == [4, 2, 2]
    assert [path.name for path in sources[-1].files] == ["b.avif", "picture"]
    assert said == [f"{tmp_path}: 1 file left out: 1 .txt"]


def test_a_single_picture_is_one_frame(tmp_path):
    photo(96, 64).save(tmp_path / "frame%d.png")
    (source,) = find(str(tmp_path / "frame%d.png"), 25, False, {})
    (frame,) = source.frames(threading.Event())
    assert upright_pixels(frame.jpeg(90)).shape == (64, 96, 3)


# --- cameras ---

PICTURE = encode(photo(96, 64), quality=90)
PART = b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(PICTURE) + PICTURE + b"\r\n"
MULTIPART = "multipart/x-mixed-replace; boundary=frame"


@pytest.mark.parametrize(
    "part",
    [b"--frame\r\n" + PART, b"\r\n--frame\r\n" + PART, PART + b"--frame\r\n", b"frame\r\n" + PART, PICTURE],
    ids=["plain", "empty line first", "no first boundary", "boundary without dashes", "no boundary at all"],
)
def test_cameras_that_browsers_play_are_played(part):
    stop, frames = threading.Event(), []
    with serving_http(MULTIPART, part, 12, 50) as address:
        source = Source(address)
        for frame in source.frames(stop):
            frames.append(frame.jpeg(1))
            if len(frames) == 5:
                stop.set()
    assert frames == [PICTURE] * 5
    assert source.passthrough


def test_what_is_no_video_is_said():
    with (
        serving_http("text/html", b"<html>login first</html>", 1, 50) as address,
        pytest.raises(SourceError, match=r"127\.0\.0\.1"),
    ):
        next(Source(address).frames(threading.Event()))


def test_a_camera_on_this_machine_is_not_asked_for_through_a_proxy(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    with serving_http(MULTIPART, b"--frame\r\n" + PART, 5, 50) as address:
        assert next(Source(address).frames(threading.Event())).jpeg(1) == PICTURE
