"""A thousand odd files of each kind through the client side: no exception but ours, and nothing lost in silence."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from chaos import fuzz_client
from data.vectors import table
from data.vectors.ask_chromium import Chromium
from helpers import recordings
from helpers.hostile import photo
from nudenet_client import PictureError, upright_size
from nudenet_client.pictures import file_to_jpeg, upright_pixels
from nudenet_steps.preprocess import jpeg
from nudenet_tools.bulk import sources
from nudenet_tools.streams.source import Source, SourceError

COUNT = 1000
FARTHEST = 8  # of 255, in the mean of a cell: JPEG of other formats, and two decoders


@pytest.fixture(scope="module")
def chromium():
    with Chromium() as browser:
        yield browser


def distance(pixels, shown):
    assert pixels.shape == shown.shape
    return np.abs(table.cells(pixels).astype(int) - table.cells(shown)).max()


def served(data):
    """What the server makes of a file: pixels, or None where it refuses it."""
    try:
        header = jpeg.read_header(data)
        return jpeg.decode(data, header, *header.upright_size)
    except jpeg.JpegError:
        return None


@pytest.mark.needs("chromium")
def test_jpegs_are_seen_as_chromium_shows_them_or_refused(chromium):
    files = [fuzz_client.jpeg(seed) for seed in range(COUNT)]
    compared = turned = 0
    for seed, (data, shown) in enumerate(zip(files, chromium.show_many(files), strict=True)):
        width, height = upright_size(data)
        pixels = served(data)
        if pixels is None:
            continue
        assert pixels.shape == (height, width, 3), seed
        assert distance(upright_pixels(data), pixels) <= FARTHEST, seed
        if shown is not None:
            compared += 1
            turned += height > width
            assert distance(pixels, shown) <= FARTHEST, seed
    assert compared > 0.8 * COUNT
    assert turned > 0.02 * COUNT


@pytest.mark.needs("chromium")
def test_other_formats_are_sent_as_chromium_shows_them_or_refused(chromium):
    files = [fuzz_client.picture(seed) for seed in range(COUNT)]
    compared = 0
    for seed, (data, shown) in enumerate(zip(files, chromium.show_many(files), strict=True)):
        try:
            sent = file_to_jpeg(data)
        except PictureError as error:
            assert error.reason, seed
            continue
        if sent == data:  # no picture to us: the server says what it is
            assert served(data) is None, seed
            continue
        pixels = upright_pixels(sent)
        assert served(sent) is not None, seed
        if shown is not None:
            compared += 1
            assert distance(pixels, shown) <= FARTHEST, seed
    assert compared > 0.5 * COUNT


def test_listings_are_read_whatever_they_hold(tmp_path):
    for seed in range(COUNT):
        (tmp_path / "list.txt").write_bytes(fuzz_client.listing(seed))
        try:
            found = list(sources.listing(str(tmp_path / "list.txt")))
        except sources.SourceError:
            continue
        for name in found:
            name.encode()
            with pytest.raises(PictureError, match="cannot be read"):
                sources.read(str(tmp_path / "missing" / name) if "://" not in name else name)


def test_recordings_are_read_as_far_as_they_go(tmp_path):
    pixels = np.asarray(photo(48, 32))
    whole = {
        name: recordings.record(tmp_path / name, pixels, 5).read_bytes()
        for name in ("a.mp4", "b.mkv", "c.avi", "d.mov", "e.ts")
    }
    read = 0
    for seed in range(COUNT):
        path = fuzz_client.recording(seed, whole, tmp_path)
        source = Source(str(path), paced=False)
        last = 0.0
        try:
            for frame in source.frames(threading.Event()):
                assert frame.time >= last, seed
                last = frame.time
                try:
                    assert frame.jpeg(85), seed
                except PictureError:
                    continue
                read += 1
        except SourceError as error:
            assert str(path) in str(error), seed
        path.unlink()
    assert read > COUNT
