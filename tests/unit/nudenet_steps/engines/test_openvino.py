"""`openvino.py`: however pictures come together, each gets the answer it gets alone."""

from __future__ import annotations

import time

import numpy as np
import pytest

from nudenet_steps.engines import EngineError, openvino
from nudenet_steps.engines.onnxruntime_cpu import OnnxRuntimeEngine
from nudenet_steps.preprocess import canvas

SERVED = canvas.CANVASES[:2]  # each one more is compiled


@pytest.mark.parametrize("threads", [1, 2, 3, 6, 16])
def test_every_picture_has_one_share_and_shares_are_even(threads):
    for pictures in range(1, 9):
        shares = openvino.shares(pictures, threads)
        assert [picture for start, end in shares for picture in range(start, end)] == list(range(pictures))
        sizes = [end - start for start, end in shares]
        assert max(sizes) - min(sizes) <= 1
        assert len(shares) == openvino.streams_for(pictures, threads) <= min(pictures, threads)
    assert len(openvino.shares(8, 16)) == 8


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 256, (5, 3, 180, 320), np.uint8)


@pytest.fixture(scope="module")
def alone(onnx_path, pictures):
    single = openvino.OpenVinoEngine(onnx_path.parent, 1, "FP32", 1, canvas.CANVASES[:1])
    return np.concatenate([single.infer([picture[None]]).copy() for picture in pictures])


@pytest.fixture(scope="module")
def reference(onnx_path):
    return OnnxRuntimeEngine(onnx_path.parent)


@pytest.mark.parametrize("threads", [0, 1, 3, 8])
@pytest.mark.parametrize("parts", [[1], [2], [1, 1, 1], [2, 3], [4, 1], [1, 1, 1, 1, 1]])
def test_parts_are_answered_in_order(onnx_path, pictures, alone, engines, threads, parts):
    count = sum(parts)
    split = np.split(pictures[:count], np.cumsum(parts)[:-1])
    for nobody_else in (True, False):
        np.testing.assert_allclose(engines(threads).infer(split, nobody_else), alone[:count], atol=2e-3)


@pytest.fixture(scope="module")
def engines(onnx_path):
    built = {}

    def get(threads):
        if threads not in built:
            built[threads] = openvino.OpenVinoEngine(onnx_path.parent, 5, "FP32", threads, SERVED)
        return built[threads]

    return get


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("parts", [[1], [2, 1], [1, 1, 1, 1, 1]])
def test_further_canvases_are_answered_in_order(engines, reference, parts, alone):
    pixels = np.random.default_rng(1).integers(0, 256, (sum(parts), 3, *SERVED[1]), np.uint8)
    found = engines(2).infer(np.split(pixels, np.cumsum(parts)[:-1]), alone)
    np.testing.assert_allclose(found, reference.infer([pixels]), atol=2e-3)


@pytest.mark.parametrize("size", SERVED)
def test_pixels_and_input_are_answered_alike(engines, size):
    pixels = np.random.default_rng(2).integers(0, 256, (2, 3, *size), np.uint8)
    of_pixels = engines(2).infer([pixels]).copy()
    of_input = engines(2).infer([pixels * np.float32(1 / 255)])
    np.testing.assert_allclose(of_pixels, of_input, rtol=1e-5, atol=1e-5)


def test_a_graph_of_one_size_is_not_taken_for_several(onnx_path, tmp_path):
    (tmp_path / "model.dynamic.onnx").symlink_to(onnx_path)
    with pytest.raises(EngineError, match="takes 180x320 only, 2 canvases are served"):
        openvino.OpenVinoEngine(tmp_path, 1, canvases=SERVED)


@pytest.mark.parametrize("count", [1, 4, 5])
def test_beside_another_engine_half_of_the_threads_work(pictures, engines, count):
    both = engines(2)
    begin, cpu = time.perf_counter(), time.process_time()
    for _ in range(10):
        both.infer([pictures[:count]], alone=False)
    assert time.process_time() - cpu < 1.3 * (time.perf_counter() - begin)
