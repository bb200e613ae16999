"""The engines that can be built, one for each setting that serves one: its graph, its inputs, its file."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from nudenet_build.graph import export, precision
from nudenet_build.graph.onnx_file import load_detector
from nudenet_build.graph.precision import PrecisionError
from nudenet_build.outputs import check_output
from nudenet_build.trt.session import Runtime
from nudenet_steps.engines.onnx_graphs import PIXELS, SOURCE, take_pixels
from nudenet_steps.preprocess.canvas import SPECIFIED as SPECIFIED_CANVAS


class Precision(enum.StrEnum):
    """What the trunk and head of the network compute in."""

    FP32 = "FP32"
    FP16 = "FP16"
    INT8_FP16 = "INT8"  # what TensorRT's INT8 means here: on the command line it has the short name

    @property
    def in_plan(self) -> str:
        """As the passport names it."""
        return "INT8+FP16" if self is Precision.INT8_FP16 else self.value


@dataclass(frozen=True)
class Variant:
    """One kind of engine."""

    runtime: Runtime
    file_name: str  # in nudenet_trt/1
    inputs: tuple[str, ...]  # of nudenet_trt: ``input`` FP32 in [0,1], ``pixels`` UINT8
    any_canvas: bool  # height and width are open; else 180x320, as specified

    @property
    def graph(self) -> Path:
        """The FP32 graph to start from."""
        return export.DYNAMIC_OUTPUT if self.any_canvas else export.DEFAULT_OUTPUT

    def export(self, path: Path) -> None:
        """Write that graph from the nudenet package.

        Raises:
            ExportError: the package's network is not the known one.
        """
        source = export.find_source()
        model = export.build_dynamic_model(source) if self.any_canvas else export.build_model(source, *SPECIFIED_CANVAS)
        export.write_graph(model, path)


SPECIFIED = Variant(Runtime.TENSORRT, "model.plan", (SOURCE,), any_canvas=False)  # config.pbtxt
LIVE = Variant(Runtime.TENSORRT, "model.live.plan", (PIXELS,), any_canvas=True)  # configs/live.pbtxt
RTX = Variant(Runtime.RTX, "model.rtx.engine", (PIXELS, SOURCE), any_canvas=True)  # configs/rtx.pbtxt


def prepare_graph(
    variant: Variant, kind: Precision, onnx_path: Path, calibration_data: Path | None, folder: Path
) -> Path:
    """The graph to compile: the FP32 one itself, or one of this precision and these inputs written to `folder`.

    Raises:
        PrecisionError: no FP32 graph, or missing or unfit calibration data.
        GraphError: a damaged graph, or one of something else.
        OutputError: the written graph would replace the FP32 one.
    """
    if not onnx_path.is_file():
        raise PrecisionError(f"no FP32 graph at {onnx_path}; add --export-onnx to make it")
    if kind is Precision.FP32 and variant.inputs == (SOURCE,):
        load_detector(onnx_path, full_check=False)  # the library's own parser is the judge of the rest
        return onnx_path
    if kind is Precision.INT8_FP16 and calibration_data is None:
        raise PrecisionError(
            "--precision INT8 needs --calibration-data calib_data.npy: python build/collect_calibration_data.py "
            "--output calib_data.npy PICTURES_OR_VIDEOS makes it; for an engine without calibration say "
            "--precision FP16"
        )
    path = folder / f"{variant.file_name}.{kind.in_plan.lower().replace('+', '_')}.onnx"
    check_output(path, onnx_path, calibration_data)
    model = in_precision(variant, kind, onnx_path, calibration_data)
    export.write_graph(with_inputs(model, variant.inputs), path)
    return path


def in_precision(variant: Variant, kind: Precision, onnx_path: Path, calibration_data: Path | None) -> onnx.ModelProto:
    """The graph at `onnx_path` in `kind`, with its one FP32 input."""
    if kind is Precision.FP32:
        return load_detector(onnx_path)
    target = precision.Precision.FP16 if kind is Precision.FP16 else precision.Precision.INT8_FP16
    fp32_scales = variant.runtime is Runtime.RTX and kind is Precision.INT8_FP16
    return precision.convert(target, onnx_path, calibration_data, fp32_scales=fp32_scales)


def with_inputs(model: onnx.ModelProto, inputs: tuple[str, ...]) -> onnx.ModelProto:
    """A copy of `model`, which has the one input ``input``, with these.

    With both, the network sees pixels / 255 + input, and whoever runs it fills the one that was not sent with zeros:
    adding zero changes no bit, so one engine, its memory and its compiled kernels serve both.
    """
    if inputs == (SOURCE,):
        return model
    result = take_pixels(model)
    if inputs == (PIXELS,):
        return result
    graph = result.graph
    scaled = next(node for node in graph.node if node.output[0] == "pixels/unit")
    scaled.output[0] = "pixels/scaled"
    both = helper.make_node("Add", ["pixels/scaled", SOURCE], ["pixels/unit"], name="pixels/Add")
    graph.node.insert(list(graph.node).index(scaled) + 1, both)
    graph.input.append(graph.input[0])
    graph.input[1].name = SOURCE
    graph.input[1].type.tensor_type.elem_type = TensorProto.FLOAT
    onnx.checker.check_model(result)
    return result
