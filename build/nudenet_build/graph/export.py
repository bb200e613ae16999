"""Export the NudeNet detector as the ONNX graph that `nudenet_trt` serves.

The trunk and the head's convolutions come from ``320n.onnx`` of the installed ``nudenet`` package.
Everything behind them is written anew for one static input size:

* zero padding at the bottom and right up to the network's stride of 32 (180x320 -> 192x320),
* box decoding with anchors as constants, without Conv or MatMul, so that runtimes which
  lower those to BF16 leave the decode in FP32,
* one row a candidate: x1, y1, x2, y2 (input pixels), class id, confidence.

Contract: ``input`` FP32 [batch,3,height,width], RGB in [0,1] ->
``output`` FP32 [batch,candidates,6], before non-maximum suppression.

`build_model` makes a graph of one input size. `build_dynamic_model` leaves height and width open, up to the largest
canvas: engines give it a size and fold the rest, compilers give it profiles. Both compute the same, bit by bit.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference, version_converter

from nudenet_build import MODEL_REPOSITORY
from nudenet_build.graph.onnx_file import INVALID, first_line, is_exported, load_graph
from nudenet_steps.files import write_whole
from nudenet_steps.preprocess.canvas import LARGEST

DEFAULT_OUTPUT = MODEL_REPOSITORY / "nudenet_trt" / "1" / "model.onnx"
DYNAMIC_OUTPUT = DEFAULT_OUTPUT.with_name("model.dynamic.onnx")

STRIDES = (8, 16, 32)
STRIDE = max(STRIDES)
DFL_BINS = 16  # bins of the box-side distribution, YOLOv8's reg_max
OPSET = 19  # the first with FP16 scales in QuantizeLinear, which the INT8 + FP16 graph needs
MAX_SIDE = 4096
NOT_CONVERTED = (version_converter.ConvertError, RuntimeError, IndexError)  # what ONNX's version converter raises
REMEDY = "leave out --source, and use the nudenet release pinned in requirements.txt"


class ExportError(RuntimeError):
    """The source graph is missing or is not the one this exporter was written for."""


def find_source() -> Path:
    """Path of ``320n.onnx`` inside the installed ``nudenet`` package, found without importing it.

    Raises:
        ExportError: the package or the file is missing.
    """
    spec = importlib.util.find_spec("nudenet")
    if spec is None or spec.origin is None:
        raise ExportError("the nudenet package is not installed: pip install -r requirements.txt")
    path = Path(spec.origin).with_name("320n.onnx")
    if not path.is_file():
        raise ExportError(f"{path} is missing: reinstall the nudenet package")
    return path


def padded(side: int) -> int:
    """The smallest multiple of the network's stride that is not below `side` (pixels)."""
    return math.ceil(side / STRIDE) * STRIDE


def anchors(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Anchor centres and strides of all candidates, in the network's order.

    Args:
        height, width: padded input size in pixels.

    Returns:
        centres FP32 [2,N] (x, y, input pixels) and strides FP32 [N].
    """
    centres, strides = [], []
    for stride in STRIDES:
        y, x = np.mgrid[0 : height // stride, 0 : width // stride] + 0.5
        centres.append(np.stack([x.ravel(), y.ravel()]) * stride)
        strides.append(np.full(x.size, stride))
    return np.concatenate(centres, 1).astype(np.float32), np.concatenate(strides).astype(np.float32)


def _scale_outputs(graph: onnx.GraphProto) -> tuple[list[str], int]:
    """Names of the head's three raw outputs, finest first, and the number of classes."""
    names = [f"/model.22/Concat{suffix}_output_0" for suffix in ("", "_1", "_2")]
    producers = {output: node for node in graph.node for output in node.output}
    missing = [name for name in names if name not in producers]
    if missing:
        raise ExportError(f"not NudeNet's 320n graph: no tensor {missing[0]}; {REMEDY}")
    weights = {tensor.name: tensor for tensor in graph.initializer}
    convolution = producers.get(producers[names[0]].input[-1])  # of the classes
    if convolution is None or convolution.op_type != "Conv" or convolution.input[1] not in weights:
        raise ExportError(f"not NudeNet's 320n graph: {names[0]} does not come from convolutions; {REMEDY}")
    return names, weights[convolution.input[1]].dims[0]


def _ancestors(graph: onnx.GraphProto, outputs: list[str]) -> list[onnx.NodeProto]:
    """The nodes that `outputs` depend on, in topological order."""
    by_output = {output: node for node in graph.node for output in node.output}
    wanted: set[str] = set()
    stack = list(outputs)
    while stack:
        node = by_output.get(stack.pop())
        if node is not None and node.name not in wanted:
            wanted.add(node.name)
            stack.extend(node.input)
    return [node for node in graph.node if node.name in wanted]


def _node(op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, outputs, name=f"{outputs[0]}/{op}", **attributes)


_SIDES = np.concatenate([-np.ones((2, 1)), np.ones((2, 1))]).astype(np.float32)  # left, top, right, bottom


def _static_grid(height: int, width: int) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """`decode/anchor_corners` and `decode/side_scale`, FP32 [1,4,N], as constants."""
    centres, strides = anchors(height, width)
    return [], {
        "decode/side_scale": (_SIDES * strides)[None],
        "decode/anchor_corners": np.concatenate([centres, centres])[None],
    }


def _dynamic_grid(scales: list[str]) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """The same two tensors, cut at run time out of what the largest canvas needs: no arithmetic, so no rounding."""
    height, width = padded(LARGEST.height), padded(LARGEST.width)
    nodes: list[onnx.NodeProto] = []
    flat: list[str] = []
    constants: dict[str, np.ndarray] = {
        "decode/grid_starts": np.array([0, 0], np.int64),
        "decode/grid_axes": np.array([2, 3], np.int64),
        "decode/grid_shape": np.array([1, 8, -1], np.int64),
        "decode/grid_split": np.array([4, 4], np.int64),
    }
    for scale, stride in zip(scales, STRIDES, strict=True):
        y, x = (np.mgrid[0 : height // stride, 0 : width // stride] + 0.5) * stride
        side_scale = np.broadcast_to((_SIDES * stride)[:, None], (4, *x.shape))
        grid, size, cut = (f"decode/{name}_{stride}" for name in ("grid", "grid_size", "grid_cut"))
        constants[grid] = np.concatenate([np.stack([x, y, x, y]), side_scale])[None].astype(np.float32)
        flat.append(f"decode/grid_flat_{stride}")
        nodes += [
            _node("Shape", [scale], [size], start=2, end=4),
            _node("Slice", [grid, "decode/grid_starts", size, "decode/grid_axes"], [cut]),
            _node("Reshape", [cut, "decode/grid_shape"], [flat[-1]]),
        ]
    nodes += [
        _node("Concat", flat, ["decode/grid_all"], axis=2),
        _node(
            "Split", ["decode/grid_all", "decode/grid_split"], ["decode/anchor_corners", "decode/side_scale"], axis=1
        ),
    ]
    return nodes, constants


def _decode(
    scales: list[str], classes: int, grid: tuple[list[onnx.NodeProto], dict[str, np.ndarray]]
) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """Nodes and constants that turn the three raw scales into the `output` tensor."""
    nodes, constants = list(grid[0]), dict(grid[1])
    constants |= {
        "decode/split_sizes": np.array([4 * DFL_BINS, classes], np.int64),
        "decode/flat_shape": np.array([0, 4 * DFL_BINS + classes, -1], np.int64),
        "decode/sides_shape": np.array([0, 4, DFL_BINS, -1], np.int64),
        "decode/bins": np.arange(DFL_BINS, dtype=np.float32).reshape(1, 1, DFL_BINS, 1),
        "decode/bin_axis": np.array([2], np.int64),
        "decode/class_axis": np.array([1], np.int64),
    }
    flat = [f"decode/flat_{stride}" for stride in STRIDES]
    nodes += [_node("Reshape", [scale, "decode/flat_shape"], [name]) for scale, name in zip(scales, flat, strict=True)]
    nodes += [
        _node("Concat", flat, ["decode/raw"], axis=2),
        _node("Split", ["decode/raw", "decode/split_sizes"], ["decode/box_logits", "decode/class_logits"], axis=1),
        _node("Reshape", ["decode/box_logits", "decode/sides_shape"], ["decode/side_logits"]),
        _node("Softmax", ["decode/side_logits"], ["decode/side_probabilities"], axis=2),
        _node("Mul", ["decode/side_probabilities", "decode/bins"], ["decode/side_weighted"]),
        _node("ReduceSum", ["decode/side_weighted", "decode/bin_axis"], ["decode/distances"], keepdims=0),
        _node("Mul", ["decode/distances", "decode/side_scale"], ["decode/offsets"]),
        _node("Add", ["decode/anchor_corners", "decode/offsets"], ["decode/boxes"]),
        # Sigmoid is monotone: the best logit has the best confidence, so only that one is squashed.
        _node("ReduceMax", ["decode/class_logits", "decode/class_axis"], ["decode/best_logit"], keepdims=1),
        _node("Sigmoid", ["decode/best_logit"], ["decode/confidence"]),
        _node("ArgMax", ["decode/class_logits"], ["decode/class_index"], axis=1, keepdims=1),
        _node("Cast", ["decode/class_index"], ["decode/class_id"], to=TensorProto.FLOAT),
        _node("Concat", ["decode/boxes", "decode/class_id", "decode/confidence"], ["decode/columns"], axis=1),
        _node("Transpose", ["decode/columns"], ["output"], perm=[0, 2, 1]),
    ]
    return nodes, constants


def _static_pad(height: int, width: int) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """`input` to `pad/padded`; nothing where the size is a multiple of the stride already."""
    bottom, right = padded(height) - height, padded(width) - width
    if not bottom and not right:
        return [], {}
    pads = np.array([0, 0, 0, 0, 0, 0, bottom, right], np.int64)
    return [_node("Pad", ["input", "pad/pads"], ["pad/padded"])], {"pad/pads": pads}


def _dynamic_pad() -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """`input` of any size to `pad/padded`, with integer arithmetic that every compiler evaluates on shapes."""
    constants = {
        "pad/stride": np.array([STRIDE], np.int64),
        "pad/round_up": np.array([STRIDE - 1], np.int64),
        "pad/before": np.zeros(6, np.int64),
    }
    nodes = [
        _node("Shape", ["input"], ["pad/size"], start=2, end=4),
        _node("Add", ["pad/size", "pad/round_up"], ["pad/size_plus"]),
        _node("Div", ["pad/size_plus", "pad/stride"], ["pad/steps"]),
        _node("Mul", ["pad/steps", "pad/stride"], ["pad/wanted"]),
        _node("Sub", ["pad/wanted", "pad/size"], ["pad/after"]),
        _node("Concat", ["pad/before", "pad/after"], ["pad/pads"], axis=0),
        _node("Pad", ["input", "pad/pads"], ["pad/padded"]),
    ]
    return nodes, constants


def build_model(source: Path, height: int, width: int) -> onnx.ModelProto:
    """The serving graph for one input size.

    Args:
        source: NudeNet's ``320n.onnx``.
        height, width: input size in pixels, 1 to 4096; need not be multiples of 32.

    Returns:
        a checked model, dynamic in the batch only.

    Raises:
        ExportError: size out of range, or `source` is another graph.
        GraphError: `source` is no whole graph.
    """
    for name, side in (("height", height), ("width", width)):
        if not 1 <= side <= MAX_SIDE:
            raise ExportError(f"{name} must be in 1..{MAX_SIDE} pixels, got {side}")
    return _build(source, height, width)


def build_dynamic_model(source: Path) -> onnx.ModelProto:
    """The serving graph with height and width open: any size up to the largest canvas.

    Args:
        source: NudeNet's ``320n.onnx``.

    Returns:
        a checked model with input dimensions ``batch``, ``height`` and ``width``.

    Raises:
        ExportError: `source` is another graph.
        GraphError: `source` is no whole graph.
    """
    return _build(source, None, None)


def _build(source: Path, height: int | None, width: int | None) -> onnx.ModelProto:
    original = load_graph(source, f"320n.onnx of the nudenet package; {REMEDY}")
    if is_exported(original):
        raise ExportError(f"{source} was exported already, expected 320n.onnx of the nudenet package; {REMEDY}")
    names, classes = _scale_outputs(original.graph)
    try:
        return _assemble(original, names, classes, source.name, height, width)
    except (*INVALID, *NOT_CONVERTED) as error:
        raise ExportError(f"{source} is not NudeNet's 320n graph: {first_line(error)}; {REMEDY}") from error


def _assemble(
    original: onnx.ModelProto, names: list[str], classes: int, source_name: str, height: int | None, width: int | None
) -> onnx.ModelProto:
    trunk = _ancestors(original.graph, names)
    used = {tensor for node in trunk for tensor in node.input}
    source_input = original.graph.input[0].name
    size: list[int | str]
    inner: list[int | str]
    rows: int | str
    if height is None or width is None:
        size, inner, rows = ["height", "width"], ["padded_height", "padded_width"], "candidates"
        pad, pad_constants = _dynamic_pad()
        nodes, constants = _decode(names, classes, _dynamic_grid(names))
    else:
        size, inner = [height, width], [padded(height), padded(width)]
        rows = anchors(padded(height), padded(width))[1].size
        pad, pad_constants = _static_pad(height, width)
        nodes, constants = _decode(names, classes, _static_grid(padded(height), padded(width)))

    model = helper.make_model(
        helper.make_graph(
            trunk,
            f"nudenet_{size[0]}x{size[1]}",
            [helper.make_tensor_value_info(source_input, TensorProto.FLOAT, ["batch", 3, *inner])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names],
            [tensor for tensor in original.graph.initializer if tensor.name in used],
        ),
        opset_imports=[helper.make_opsetid("", original.opset_import[0].version)],
    )
    model = version_converter.convert_version(model, OPSET)
    graph = model.graph
    for node in graph.node:
        for i, tensor in enumerate(node.input):
            if tensor == source_input:
                node.input[i] = "pad/padded" if pad else "input"
    in_order = [*pad, *graph.node, *nodes]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(in_order)
    arrays = {**pad_constants, **constants}
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    graph.input.append(helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, *size]))
    graph.output.append(helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", rows, 6]))

    model.producer_name = "nudenet-on-triton"
    model.ir_version = 9  # the one that came with opset 19: read by every runtime we name
    labels = next((p.value for p in original.metadata_props if p.key == "names"), "")
    licence = next((p.value for p in original.metadata_props if p.key == "license"), "unknown")
    helper.set_model_props(model, {"names": labels, "license": licence, "source": source_name})
    model = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    onnx.checker.check_model(model, full_check=True)
    return model


def write_graph(model: onnx.ModelProto, path: Path) -> None:
    """Write `model` as a whole or not at all, for all users to read: the server may run as another one."""
    write_whole(path, model.SerializeToString(), 0o644)
