"""The clients group pictures as the server lays them out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st

from nudenet_client import canvas as client
from nudenet_steps.preprocess import canvas as server

NODE = Path(__file__).parents[3] / "clients" / "node" / "canvas.js"
side = st.integers(1, 65500)


def test_all_know_the_same_canvases():
    assert [tuple(canvas) for canvas in server.CANVASES] == list(client.CANVASES)
    in_node = re.search(r"CANVASES = (\[.*\]);", NODE.read_text())
    assert [tuple(canvas) for canvas in json.loads(in_node[1])] == list(client.CANVASES)


@given(side, side)
def test_the_client_chooses_as_the_server(width, height):
    assert client.canvas(width, height) == server.smallest([(width, height)])


def test_pictures_of_one_canvas_go_together():
    sizes = [(90, 160), (160, 90), (45, 100), (0, 0), (120, 90)]  # height, width
    files = {
        i: simplejpeg.encode_jpeg(np.zeros((*size, 3), np.uint8)) if size[0] else b"no picture"
        for i, size in enumerate(sizes)
    }
    assert client.groups(files) == [[0, 2, 3], [1], [4]]
