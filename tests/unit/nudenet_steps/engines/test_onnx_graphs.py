"""`onnx_graphs.py`: the edited graphs compute what the original does, bit by bit."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from nudenet_steps.engines.onnx_graphs import fix_canvas, take_pixels
from nudenet_steps.preprocess.canvas import CANVASES, Canvas


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def dynamic(onnx_path):
    return onnx.load(onnx_path.with_suffix(".dynamic.onnx"))


@pytest.mark.parametrize("canvas", CANVASES)
def test_pixels_of_one_canvas_are_answered_as_input_of_the_dynamic_graph(dynamic, canvas):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, *canvas), np.uint8)
    expected = session(dynamic).run(None, {"input": pixels * np.float32(1 / 255)})[0]
    fixed = fix_canvas(take_pixels(dynamic), canvas)
    np.testing.assert_array_equal(session(fixed).run(None, {"pixels": pixels})[0], expected)
    assert not {"Shape", "Slice"} & {node.op_type for node in fixed.graph.node}
    (output,) = fixed.graph.output
    assert output.type.tensor_type.shape.dim[1].dim_value == expected.shape[1]


def test_what_does_not_fit_is_refused(dynamic):
    with pytest.raises(ValueError, match="takes 180x320 only, not 320x320"):
        fix_canvas(fix_canvas(dynamic, CANVASES[0]), Canvas(320, 320))
    with pytest.raises(ValueError, match="expected one input 'input', got \\['pixels'\\]"):
        take_pixels(take_pixels(dynamic))
