"""Edits of the detector's ONNX graph: UINT8 pixels for FP32 input, and a fixed size for an open one. Needs onnx."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nudenet_steps.preprocess.canvas import Canvas
from nudenet_steps.preprocess.letterbox import TO_UNIT

SOURCE, PIXELS, OUTPUT = "input", "pixels", "output"
# What in the dynamic graph depends on height and width alone; see build/nudenet_build/graph/export.py.
SHAPE_TENSORS = ("pad/pads", "decode/anchor_corners", "decode/side_scale")


def take_pixels(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` that takes UINT8 [batch,3,height,width] and computes what the original does of pixels / 255.

    The same multiplication in FP32 that preprocessing does for `input`, so answers are equal bit by bit.

    Raises:
        ValueError: `model` has not the one input ``input``.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    if [value.name for value in graph.input] != [SOURCE]:
        raise ValueError(f"expected one input {SOURCE!r}, got {[value.name for value in graph.input]}")
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == SOURCE:
                node.input[i] = "pixels/unit"
    graph.input[0].name = PIXELS
    graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    graph.initializer.append(numpy_helper.from_array(np.array(TO_UNIT, np.float32), "pixels/to_unit"))
    cast = helper.make_node("Cast", [PIXELS], ["pixels/float"], name="pixels/Cast", to=TensorProto.FLOAT)
    scale = helper.make_node("Mul", ["pixels/float", "pixels/to_unit"], ["pixels/unit"], name="pixels/Mul")
    graph.node.insert(0, cast)
    graph.node.insert(1, scale)
    onnx.checker.check_model(result)
    return result


def fix_canvas(model: onnx.ModelProto, canvas: Canvas) -> onnx.ModelProto:
    """A copy of the dynamic `model` for one size: what depends on the size becomes constants, the batch stays open.

    For runtimes that cannot fold it themselves, such as CUDA graphs of ONNX Runtime.

    Raises:
        ValueError: `model` is fixed to another size.
    """
    dims = model.graph.input[0].type.tensor_type.shape.dim[2:]
    fixed = tuple(dim.dim_value for dim in dims)
    if fixed == tuple(canvas):
        return model
    if any(fixed):
        raise ValueError(f"the graph takes {fixed[0]}x{fixed[1]} only, not {canvas.height}x{canvas.width}")
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    values, rows = _evaluate(model, canvas)
    kept = _needed([node for node in graph.node if values.keys().isdisjoint(node.output)], OUTPUT)
    used = {name for node in kept for name in node.input}
    constants = [tensor for tensor in graph.initializer if tensor.name in used]
    constants += [numpy_helper.from_array(array, name) for name, array in values.items()]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(kept)
    graph.initializer.extend(constants)
    for dim, side in zip(graph.input[0].type.tensor_type.shape.dim[2:], canvas, strict=True):
        dim.dim_value = side
    graph.output[0].type.tensor_type.shape.dim[1].dim_value = rows
    onnx.checker.check_model(result, full_check=True)
    return result


def _evaluate(model: onnx.ModelProto, canvas: Canvas) -> tuple[dict[str, np.ndarray], int]:
    """The shape tensors of `model` at this size, and the number of candidates: one run in ONNX Runtime."""
    import onnxruntime

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in SHAPE_TENSORS)
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0]
    empty = np.zeros((1, 3, *canvas), np.uint8 if source.type == "tensor(uint8)" else np.float32)
    output, *values = session.run([OUTPUT, *SHAPE_TENSORS], {source.name: empty})
    return dict(zip(SHAPE_TENSORS, values, strict=True)), output.shape[1]


def _needed(nodes: list[onnx.NodeProto], output: str) -> list[onnx.NodeProto]:
    """Those of `nodes`, in topological order, that `output` depends on."""
    wanted, kept = {output}, []
    for node in reversed(nodes):
        if not wanted.isdisjoint(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]
