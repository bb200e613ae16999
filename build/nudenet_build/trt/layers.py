"""What the compiler made of the graph: its layers and their types, read from the list that the builder logs.

With detailed profiling verbosity the builder logs what the engine inspector shows, and needs no GPU for it. The list
names types and the ONNX nodes in each layer; it does not tell which kernels a GPU will choose, nor how fast they are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

_LAYER = re.compile(
    r"^Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*?)\], Constants: \[.*?\], "
    r"Outputs: \[(?P<outputs>.*)\], TacticName: "
)
_TYPE = re.compile(r"Datatype: (\w+)")
_NODE = re.compile(r"\[ONNX Layer: (.*?)\]")
_NAMES = {"Int8": "INT8", "Half": "FP16", "Float": "FP32"}  # narrowest first


@dataclass(frozen=True)
class Layer:
    """One layer of an engine."""

    name: str
    kind: str
    inputs: frozenset[str]  # types, as the library names them: Int8, Half, Float, Int32, ...
    outputs: frozenset[str]
    nodes: frozenset[str]  # names of the ONNX nodes that went into it


def read(log: str) -> list[Layer]:
    """The layers in `log`, see `session.Log.layers`; none where the library words its list in another way."""
    layers = []
    for line in log.splitlines():
        if match := re.match(_LAYER, line):
            inputs, outputs = (frozenset(_TYPE.findall(match[side])) for side in ("inputs", "outputs"))
            layers.append(Layer(match["name"], match["kind"], inputs, outputs, frozenset(_NODE.findall(line))))
    return layers


def input_types(layers: Iterable[Layer], nodes: Iterable[str]) -> Counter[str]:
    """How many of the ONNX `nodes` take their input in which type: INT8, FP16 or FP32, the narrowest that is seen.

    A node may be spread over layers: a convolution in INT8 adds its bias in FP32.
    """
    seen: dict[str, set[str]] = {}
    for layer in layers:
        for node in layer.nodes:
            seen.setdefault(node, set()).update(layer.inputs)
    counts: Counter[str] = Counter()
    for node in nodes:
        if found := [name for kind, name in _NAMES.items() if kind in seen.get(node, ())]:
            counts[found[0]] += 1
    return counts
