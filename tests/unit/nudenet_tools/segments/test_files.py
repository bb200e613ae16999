"""One video without a server: which frames are asked about, stops, kills, refusals."""

import json
import threading

import numpy as np
import pytest
import simplejpeg

from nudenet_client import Detections, Parameters, ServerUnavailable
from nudenet_tools.segments.files import Settings, analyse
from nudenet_tools.streams.source import Source


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


def test_it_ends_at_the_first_block_where_asked(clip, tmp_path):
    answer = run(Scripted(clip, FOUND, block=12), clip, tmp_path / "r.json", stop_at_block=True)
    assert (answer["complete"], answer["stopped_at_block"], answer["verdict"]) == (True, True, "block")
    assert answer["frames"]["last"] == 12
    assert run(Scripted(clip, FOUND, block=12), clip, tmp_path / "all.json")["frames"]["last"] == 59
