"""Export the NudeNet detector as the ONNX graph that `nudenet_trt` serves.

The trunk and the head's convolutions come from ``320n.onnx`` of the installed ``nudenet`` package.
Everything behind them is written anew for one static input size:

* zero padding at the bottom and right up to the network's stride of 32 (180x320 -> 192x320),
* box decoding with anchors as constants, without Conv or MatMul, so that runtimes which
  lower those to BF16 leave the decode in FP32,
* one row a candidate: x1, y1, x2, y2 (input pixels), class id, confidence.

Contract: ``input`` FP32 [batch,3,height,width], RGB in [0,1] ->
``output`` FP32 [batch,candidates,6], before non-maximum suppression.
"""

from __future__ import annotations

import importlib.util
import math
import os
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference, version_converter

from nudenet_build import MODEL_REPOSITORY

DEFAULT_OUTPUT = MODEL_REPOSITORY / "nudenet_trt" / "1" / "model.onnx"

STRIDES = (8, 16, 32)
STRIDE = max(STRIDES)
DFL_BINS = 16  # bins of the box-side distribution, YOLOv8's reg_max
OPSET = 19  # the first with FP16 scales in QuantizeLinear, which the INT8 + FP16 graph needs
MAX_SIDE = 4096


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
        raise ExportError(
            f"not NudeNet's 320n graph: no tensor {missing[0]}; use the nudenet release pinned in requirements.txt"
        )
    class_convolution = producers[producers[names[0]].input[1]]
    weight = next(tensor for tensor in graph.initializer if tensor.name == class_convolution.input[1])
    classes = weight.dims[0]
    return names, classes


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


def _decode(scales: list[str], classes: int, height: int, width: int):
    """Nodes and constants that turn the three raw scales into the `output` tensor."""
    centres, strides = anchors(height, width)
    count = strides.size
    sides = np.concatenate([-np.ones((2, 1)), np.ones((2, 1))]).astype(np.float32)  # left, top, right, bottom
    constants = {
        "decode/split_sizes": np.array([4 * DFL_BINS, classes], np.int64),
        "decode/sides_shape": np.array([-1, 4, DFL_BINS, count], np.int64),
        "decode/bins": np.arange(DFL_BINS, dtype=np.float32).reshape(1, 1, DFL_BINS, 1),
        "decode/bin_axis": np.array([2], np.int64),
        "decode/side_scale": (sides * strides)[None],
        "decode/anchor_corners": np.concatenate([centres, centres])[None],
        "decode/class_axis": np.array([1], np.int64),
    }
    flat: list[str] = []
    steps: list[tuple[str, list[str], list[str], dict]] = []
    for scale, stride in zip(scales, STRIDES, strict=True):
        cells = (height // stride) * (width // stride)
        constants[f"decode/flat_shape_{stride}"] = np.array([-1, 4 * DFL_BINS + classes, cells], np.int64)
        flat.append(f"decode/flat_{stride}")
        steps.append(("Reshape", [scale, f"decode/flat_shape_{stride}"], [flat[-1]], {}))
    steps += [
        ("Concat", flat, ["decode/raw"], {"axis": 2}),
        ("Split", ["decode/raw", "decode/split_sizes"], ["decode/box_logits", "decode/class_logits"], {"axis": 1}),
        ("Reshape", ["decode/box_logits", "decode/sides_shape"], ["decode/side_logits"], {}),
        ("Softmax", ["decode/side_logits"], ["decode/side_probabilities"], {"axis": 2}),
        ("Mul", ["decode/side_probabilities", "decode/bins"], ["decode/side_weighted"], {}),
        ("ReduceSum", ["decode/side_weighted", "decode/bin_axis"], ["decode/distances"], {"keepdims": 0}),
        ("Mul", ["decode/distances", "decode/side_scale"], ["decode/offsets"], {}),
        ("Add", ["decode/anchor_corners", "decode/offsets"], ["decode/boxes"], {}),
        # Sigmoid is monotone: the best logit has the best confidence, so only that one is squashed.
        ("ReduceMax", ["decode/class_logits", "decode/class_axis"], ["decode/best_logit"], {"keepdims": 1}),
        ("Sigmoid", ["decode/best_logit"], ["decode/confidence"], {}),
        ("ArgMax", ["decode/class_logits"], ["decode/class_index"], {"axis": 1, "keepdims": 1}),
        ("Cast", ["decode/class_index"], ["decode/class_id"], {"to": TensorProto.FLOAT}),
        ("Concat", ["decode/boxes", "decode/class_id", "decode/confidence"], ["decode/columns"], {"axis": 1}),
        ("Transpose", ["decode/columns"], ["output"], {"perm": [0, 2, 1]}),
    ]
    nodes = [helper.make_node(op, i, o, name=f"{o[0]}/{op}", **attributes) for op, i, o, attributes in steps]
    return nodes, [numpy_helper.from_array(array, name) for name, array in constants.items()]


def build_model(source: Path, height: int, width: int) -> onnx.ModelProto:
    """The serving graph for one input size.

    Args:
        source: NudeNet's ``320n.onnx``.
        height, width: input size in pixels, 1 to 4096; need not be multiples of 32.

    Returns:
        a checked model, dynamic in the batch only.

    Raises:
        ExportError: size out of range, or `source` is another graph.
    """
    for name, side in (("height", height), ("width", width)):
        if not 1 <= side <= MAX_SIDE:
            raise ExportError(f"{name} must be in 1..{MAX_SIDE} pixels, got {side}")
    original = onnx.load(source)
    names, classes = _scale_outputs(original.graph)
    trunk = _ancestors(original.graph, names)
    used = {tensor for node in trunk for tensor in node.input}
    source_input = original.graph.input[0].name
    bottom, right = padded(height) - height, padded(width) - width

    model = helper.make_model(
        helper.make_graph(
            trunk,
            f"nudenet_{height}x{width}",
            [
                helper.make_tensor_value_info(
                    source_input, TensorProto.FLOAT, ["batch", 3, padded(height), padded(width)]
                )
            ],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names],
            [tensor for tensor in original.graph.initializer if tensor.name in used],
        ),
        opset_imports=[helper.make_opsetid("", original.opset_import[0].version)],
    )
    model = version_converter.convert_version(model, OPSET)
    graph = model.graph
    nodes, constants = _decode(names, classes, padded(height), padded(width))
    graph.node.extend(nodes)
    graph.initializer.extend(constants)

    first_input = "input"
    if bottom or right:
        pads = np.array([0, 0, 0, 0, 0, 0, bottom, right], np.int64)
        graph.initializer.append(numpy_helper.from_array(pads, "pad/pads"))
        graph.node.insert(0, helper.make_node("Pad", ["input", "pad/pads"], ["pad/padded"], name="pad/Pad"))
        first_input = "pad/padded"
    for node in graph.node:
        for i, tensor in enumerate(node.input):
            if tensor == source_input:
                node.input[i] = first_input
    del graph.input[:], graph.output[:], graph.value_info[:]
    graph.input.append(helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, height, width]))
    candidates = anchors(padded(height), padded(width))[1].size
    graph.output.append(helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", candidates, 6]))

    model.producer_name = "nudenet-on-triton"
    model.ir_version = 9  # the one that came with opset 19: read by every runtime we name
    labels = next((p.value for p in original.metadata_props if p.key == "names"), "")
    licence = next((p.value for p in original.metadata_props if p.key == "license"), "unknown")
    helper.set_model_props(model, {"names": labels, "license": licence, "source": source.name})
    model = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    onnx.checker.check_model(model, full_check=True)
    return model


def write_atomically(model: onnx.ModelProto, path: Path) -> None:
    """Write `model` so that a reader sees the old file or the whole new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(model.SerializeToString())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
