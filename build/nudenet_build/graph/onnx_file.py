"""Read a graph from a file, or say what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx.checker import ValidationError
from onnx.shape_inference import InferenceError

from nudenet_steps.engines.onnx_graphs import SOURCE

DECODE = "decode/"  # name prefix of the nodes that the exporter adds behind the network
INVALID = (DecodeError, ValidationError, InferenceError, ValueError)  # ValueError: text that is not UTF-8


class GraphError(ValueError):
    """A file that is no ONNX graph, or another one than expected; the message says what to do."""


def first_line(error: Exception) -> str:
    """What ONNX says, without the dump of the node that follows it."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def is_exported(model: onnx.ModelProto) -> bool:
    """Whether `model` has the exporter's box decode, so not only the network of the nudenet package."""
    return any(node.name.startswith(DECODE) for node in model.graph.node)


def load_graph(path: Path, expected: str, full_check: bool = True) -> onnx.ModelProto:
    """The graph in the file `path`, checked by ONNX.

    Args:
        expected: what should be there and how to get it, for the message.
        full_check: with shapes and types, not only the structure.

    Raises:
        GraphError: not a whole, valid graph.
        OSError: the file cannot be read.
    """
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=full_check)
        names = (name for node in model.graph.node for name in (node.name, *node.input, *node.output))
        if any(isinstance(name, bytes) for name in names):  # so protobuf hands out what is not UTF-8
            raise ValueError("a name is not UTF-8")
    except INVALID as error:
        raise GraphError(f"{path} is not a whole ONNX graph ({first_line(error)}); expected {expected}") from error
    return model


def load_detector(path: Path, full_check: bool = True) -> onnx.ModelProto:
    """The graph of ``export_onnx.py`` in the file `path`; otherwise as `load_graph`.

    Raises:
        GraphError: also a valid graph of something else.
    """
    expected = "a graph written by export_onnx.py; make it: python build/export_onnx.py"
    model = load_graph(path, expected, full_check)
    inputs = model.graph.input
    shape = inputs[0].type.tensor_type.shape.dim if [value.name for value in inputs] == [SOURCE] else ()
    if len(shape) != 4 or not is_exported(model):
        found = ", ".join(value.name for value in inputs) or "none"
        raise GraphError(
            f"{path} is another graph (inputs: {found}): one input {SOURCE!r} [batch,3,height,width] and "
            f"{DECODE} nodes are looked for; expected {expected}"
        )
    return model
