"""Put the precision into the ONNX graph: FP16, INT8 (Q/DQ) and both mixed.

TensorRT 11 compiles strongly typed networks only, so a precision is a property of the graph, not a builder flag.
Made here, it can be checked on any CPU, and a runtime merely compiles it.

Every graph keeps the tensors of the FP32 one (``input`` and ``output`` FP32) and its box decode in FP32:
FP16 numbers above 256 are 0.25 pixels apart.
"""

from __future__ import annotations

import enum
import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from nudenet_build.graph.onnx_file import DECODE, INVALID, first_line, load_detector
from nudenet_steps.preprocess.canvas import CANVASES, LARGEST, Canvas
from nudenet_steps.preprocess.letterbox import TO_UNIT

MIN_FRAMES = 64  # fewer leave the activation ranges to chance; 500 to 1000 are recommended
CALIBRATION_BATCH = 8
QUANTISED_OPERATORS = ["Conv", "Add"]

# Layer groups that stay unquantised because they cost the most detections, found by quantising one group at a time
# and by leaving groups out (build/accuracy.py --keep; figures in docs/accuracy.md). model.1 and model.2 cost most.
KEEP_SYMMETRIC = ("model.0", "model.1", "model.2", "model.4", "model.6", "model.8", "model.22")
KEEP_ASYMMETRIC = ("model.1", "model.2", "model.4")
FP32_SCALES_OPSET, FP32_SCALES_IR = 23, 11  # the first in which a scale and its data may differ in type
FP16_MAX = float(np.finfo(np.float16).max)
FP16_SMALLEST = np.finfo(np.float16).smallest_subnormal


class Precision(enum.StrEnum):
    """A precision that a graph can be given here."""

    FP16 = "FP16"
    INT8 = "INT8"  # for the CPU engine: asymmetric
    INT8_FP16 = "INT8_FP16"  # for TensorRT: symmetric

    @property
    def file_name(self) -> str:
        """The agreed file name beside ``model.onnx``."""
        return f"model.{self.value.lower()}.onnx"


class PrecisionError(ValueError):
    """The graph or the calibration data cannot be converted; the message says what to do."""


@dataclass(frozen=True)
class GraphSummary:
    """What a converted graph holds, counted by `summarise`."""

    convolutions: int
    quantised_convolutions: int  # Q/DQ on the activation and on the weight
    nonzero_zero_points: int
    bias_dequantizers: int
    casts: int
    smallest_scale: float  # of all Q/DQ scales; inf where there are none


def load_calibration(path: Path, height: int, width: int, minimum: int = MIN_FRAMES) -> np.ndarray:
    """Open and check a calibration file written by ``collect_calibration_data.py``.

    Args:
        path: ``.npy`` file.
        height, width: the graph's input size in pixels; frames of the largest canvas are accepted, too.
        minimum: fewest frames to accept.

    Returns:
        memory-mapped FP32 [N,3,H,W], RGB in [0,1]; read in pieces, never held as a whole.

    Raises:
        PrecisionError: unreadable, wrong shape, type or range, not finite, or too few frames.
    """
    collect = f"python build/collect_calibration_data.py --output {path} PICTURES_OR_VIDEOS"
    if not path.is_file():
        raise PrecisionError(f"no calibration data at {path}; make it: {collect}")
    try:
        frames = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise PrecisionError(f"{path} is not a whole .npy file ({error}); collect again: {collect}") from error
    if not isinstance(frames, np.ndarray):
        raise PrecisionError(f"{path} is an archive, not one .npy array; collect again: {collect}")
    if frames.dtype != np.float32:
        raise PrecisionError(
            f"{path} holds {frames.dtype}, expected float32 in [0,1] as the server's preprocessing makes it: {collect}"
        )
    if frames.ndim != 4 or frames.shape[1:] not in ((3, height, width), (3, *LARGEST)):
        raise PrecisionError(
            f"{path} has shape {list(frames.shape)}, expected [N,3,{height},{width}] to fit the graph's input; "
            f"collect again with --height {height} --width {width}"
        )
    if len(frames) < minimum:
        raise PrecisionError(
            f"{path} holds {len(frames)} frames, at least {minimum} are needed (500 to 1000 recommended): {collect}"
        )
    low, high = np.inf, -np.inf
    for start in range(0, len(frames), 16):
        piece = np.asarray(frames[start : start + 16])
        if not np.isfinite(piece).all():
            raise PrecisionError(f"{path} holds values that are not finite, from frame {start} on: {collect}")
        low, high = min(low, float(piece.min())), max(high, float(piece.max()))
    if high > 2:
        raise PrecisionError(
            f"{path} spans {low:g}..{high:g}: these are 0..255 pixels, the network takes 0..1; "
            f"divide by 255, or collect through the serving code: {collect}"
        )
    if low < 0 or high > 1:
        raise PrecisionError(f"{path} spans {low:g}..{high:g}, expected RGB in [0,1] without mean or std: {collect}")
    if high < 0.02:
        raise PrecisionError(f"{path} is black (largest value {high:g}); divided by 255 twice? {collect}")
    return frames


def to_fp16(model: onnx.ModelProto, fp32_scales: bool = False) -> onnx.ModelProto:
    """The same graph with its trunk and head in FP16, input, output and decode in FP32.

    Works on a Q/DQ graph too. The decode keeps FP32 because of one Cast at each edge between the two parts, so nothing
    is rounded twice.

    Args:
        model: from ``export_onnx.py`` (see `load_detector`) or `to_int8`; not changed.
        fp32_scales: Q/DQ scales stay FP32 around FP16 data. Before opset 23 both must have one type, and TensorRT 10.3
            reads opset 20 at most: for TensorRT for RTX, which converts FP16 scales to FP32 with a warning for each.

    Returns:
        a checked model.

    Raises:
        PrecisionError: already FP16, or a constant beyond FP16's range.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    in_fp32 = decode_names(graph)
    half = [node for node in graph.node if node.name not in in_fp32]
    decode = [node for node in graph.node if node.name in in_fp32]
    constants = {tensor.name: tensor for tensor in graph.initializer}
    if any(tensor.data_type == TensorProto.FLOAT16 for tensor in constants.values()):
        raise PrecisionError("the graph holds FP16 constants already; start from the FP32 or INT8 graph")

    scales = {node.input[1] for node in half if node.op_type in ("QuantizeLinear", "DequantizeLinear")}
    for name in sorted({name for node in half for name in _typed_inputs(node)} & constants.keys()):
        if constants[name].data_type == TensorProto.FLOAT and not (fp32_scales and name in scales):
            constants[name].CopyFrom(_half_constant(constants[name], is_scale=name in scales))

    source = graph.input[0].name
    casts_in = [helper.make_node("Cast", [source], ["fp16/input"], name="fp16/input/Cast", to=TensorProto.FLOAT16)]
    for node in half:
        _rename_inputs(node, {source: "fp16/input"})
    produced = {output for node in half for output in node.output}
    edges = sorted({name for node in decode for name in node.input} & produced)
    casts_out = [
        helper.make_node("Cast", [name], [f"fp32/{name}"], name=f"fp32/{name}/Cast", to=TensorProto.FLOAT)
        for name in edges
    ]
    for node in decode:
        _rename_inputs(node, {name: f"fp32/{name}" for name in edges})
    if fp32_scales and scales:
        for node in half:
            if node.op_type == "DequantizeLinear":
                node.attribute.append(helper.make_attribute("output_dtype", TensorProto.FLOAT16))
        result.opset_import[0].version, result.ir_version = FP32_SCALES_OPSET, FP32_SCALES_IR
    del graph.node[:]
    graph.node.extend([*casts_in, *half, *casts_out, *decode])
    return _checked(result)


def decode_names(graph: onnx.GraphProto) -> set[str]:
    """Names of the box decode's nodes: those called ``decode/...`` and all that follow them."""
    names: set[str] = set()
    tensors: set[str] = set()
    for node in graph.node:  # in topological order
        if node.name.startswith(DECODE) or not tensors.isdisjoint(node.input):
            names.add(node.name)
            tensors.update(node.output)
    return names


def _typed_inputs(node: onnx.NodeProto) -> list[str]:
    """The inputs whose type follows the data; Resize takes its scales in FP32 always."""
    return list(node.input[:1]) if node.op_type == "Resize" else list(node.input)


def _rename_inputs(node: onnx.NodeProto, names: dict[str, str]) -> None:
    for i, name in enumerate(node.input):
        node.input[i] = names.get(name, name)


def _half_constant(tensor: onnx.TensorProto, is_scale: bool) -> onnx.TensorProto:
    values = numpy_helper.to_array(tensor)
    if np.abs(values).max(initial=0) > FP16_MAX:
        raise PrecisionError(f"{tensor.name} reaches {np.abs(values).max():g}, beyond FP16's {FP16_MAX:g}")
    values = values.astype(np.float16)
    if is_scale:  # a scale that rounds to zero would divide by zero
        values = np.maximum(values, FP16_SMALLEST)
    return numpy_helper.from_array(values, tensor.name)


def canvas_of(frame: np.ndarray, canvases: Sequence[Canvas] = CANVASES) -> Canvas | None:
    """The smallest of `canvases` that holds all of a frame [3,H,W] but black rows and columns; None where none does.

    A frame on a larger canvas is the same frame with black added at the bottom or right, so nothing is lost.
    """
    rows, columns = (np.flatnonzero(frame.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    height, width = (int(lit[-1]) + 1 if lit.size else 1 for lit in (rows, columns))
    fitting = [canvas for canvas in canvases if canvas.height >= height and canvas.width >= width]
    return min(fitting, key=lambda canvas: canvas.area, default=None)


class _Frames(CalibrationDataReader):
    """Feeds a calibration array to the quantizer, each frame on its canvas, neighbours of one canvas together."""

    def __init__(
        self, name: str, frames: np.ndarray, canvases: Sequence[Canvas], progress: Callable[[int], None] | None
    ) -> None:
        self.name, self.frames, self.canvases, self.progress = name, frames, canvases, progress
        self.start, self.used = 0, 0

    def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[override]  # its contract ends with None
        batch: list[np.ndarray] = []
        size: Canvas | None = None
        while self.start < len(self.frames) and len(batch) < CALIBRATION_BATCH:
            frame = self.frames[self.start]
            canvas = canvas_of(frame, self.canvases)
            if canvas is not None:
                if size not in (None, canvas):
                    break
                size = canvas
                batch.append(frame[:, : canvas.height, : canvas.width])
            self.start += 1
        if not batch:
            return None
        self.used += len(batch)
        if self.progress:
            self.progress(self.start)
        pixels = np.stack(batch)
        return {self.name: pixels * TO_UNIT if pixels.dtype == np.uint8 else pixels}


def in_group(node_name: str, groups: Sequence[str]) -> bool:
    """Whether the node belongs to one of `groups`: name prefixes such as ``model.22`` or ``model.22/cv3.0``."""
    return any(f"{node_name.lstrip('/')}/".startswith(f"{group.strip('/')}/") for group in groups)


def to_int8(
    fp32_path: Path,
    calibration: np.ndarray,
    keep: Sequence[str] | None = None,
    progress: Callable[[int], None] | None = None,
    symmetric: bool = True,
) -> onnx.ModelProto:
    """Quantise convolutions and additions to INT8 with Q/DQ nodes: weights symmetric per channel, biases not at all.

    Symmetric activations (signed, zero points 0) are all that TensorRT accepts, and the quantizer's own defaults
    are not that. Asymmetric ones (unsigned) spend no codes on the range below SiLU's minimum of -0.28, so they keep
    more detections; OpenVINO runs them equally fast. They are also the only ones it runs rightly:
    OpenVINO 2026.4.1 computes a convolution of a concatenation with signed activations wrongly, without an error.

    Args:
        fp32_path: a graph from ``export_onnx.py``; the dynamic one is calibrated with frames of all canvases.
        calibration: FP32 [N,3,H,W] in [0,1] (see `load_calibration`) or UINT8, of the graph's size or the largest
            canvas. A graph of one size uses those frames that fit.
        keep: layer groups left unquantised, see `in_group`; None is the measured choice, () quantises all.
        progress: called with the number of frames done.
        symmetric: True for TensorRT, False for OpenVINO.

    Returns:
        a checked model.

    Raises:
        PrecisionError: unknown layer group, unfit calibration data, or a result that breaks the rules above.
        GraphError: no such graph.
    """
    source = load_detector(fp32_path)
    height, width = (dim.dim_value for dim in source.graph.input[0].type.tensor_type.shape.dim[2:])
    canvases = (Canvas(height, width),) if height and width else CANVASES
    if calibration.ndim != 4 or calibration.shape[1:] not in ((3, *canvases[0]), (3, *LARGEST)):
        raise PrecisionError(
            f"calibration data has shape {list(calibration.shape)}, the graph takes [N,3,{canvases[0].height},"
            f"{canvases[0].width}] or [N,3,{LARGEST.height},{LARGEST.width}]"
        )
    if keep is None:
        keep = KEEP_SYMMETRIC if symmetric else KEEP_ASYMMETRIC
    names = [node.name for node in source.graph.node]
    unknown = [group for group in keep if not any(in_group(name, [group]) for name in names)]
    if unknown:
        raise PrecisionError(f"no layer group {unknown[0]!r}; groups are model.0 to model.22, or model.22/cv3.0")
    arithmetic = [name for name in names if name.startswith("pad/")]  # of shapes, not of pixels
    excluded = [*decode_names(source.graph), *arithmetic, *(name for name in names if in_group(name, keep))]
    reader = _Frames(source.graph.input[0].name, calibration, canvases, progress)
    result = _quantise(fp32_path, reader, excluded, symmetric)
    if reader.used < min(MIN_FRAMES, len(calibration)):
        raise PrecisionError(
            f"only {reader.used} of {len(calibration)} calibration frames fit the graph's {height}x{width} pixels: "
            f"collect again with --height {height} --width {width}"
        )
    used = {node.domain for node in result.graph.node}
    for opset in [opset for opset in result.opset_import if opset.domain not in used]:
        result.opset_import.remove(opset)  # the quantizer adds a vendor's domain that nothing uses
    result.producer_name = source.producer_name
    result = _checked(result)
    summary = summarise(result)
    kept = sum(node.op_type == "Conv" and in_group(node.name, keep) for node in source.graph.node)
    if summary.quantised_convolutions != summary.convolutions - kept:
        raise PrecisionError(f"only {summary.quantised_convolutions} of {summary.convolutions} Convs were quantised")
    if summary.bias_dequantizers or not summary.smallest_scale > 0 or (symmetric and summary.nonzero_zero_points):
        raise PrecisionError(f"a runtime would refuse or misread this Q/DQ graph: {summary}")
    return result


def _quantise(fp32_path: Path, frames: CalibrationDataReader, excluded: list[str], symmetric: bool) -> onnx.ModelProto:
    options: dict[str, Any] = {
        "ActivationSymmetric": symmetric,
        "WeightSymmetric": True,
        "QuantizeBias": False,
        "AddQDQPairToWeight": True,
        "ForceQuantizeNoInputCheck": True,
        "OpTypesToExcludeOutputQuantization": QUANTISED_OPERATORS,
    }
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it recommends a preprocessing that the exporter has done
    try:
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "int8.onnx"
            quantize_static(
                fp32_path,
                target,
                frames,
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=QUANTISED_OPERATORS,
                per_channel=True,
                activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=excluded,
                # Clipping outliers (percentiles, entropy) cost detections: they are what the network looks for.
                calibrate_method=CalibrationMethod.MinMax,
                extra_options=options,
            )
            return onnx.load(target)
    finally:
        root.setLevel(level)


def to_int8_fp16(
    fp32_path: Path,
    calibration: np.ndarray,
    keep: Sequence[str] | None = None,
    progress: Callable[[int], None] | None = None,
    fp32_scales: bool = False,
) -> onnx.ModelProto:
    """Symmetric `to_int8`, then everything unquantised in FP16, see `to_fp16`. For TensorRT."""
    return to_fp16(to_int8(fp32_path, calibration, keep, progress), fp32_scales)


def summarise(model: onnx.ModelProto) -> GraphSummary:
    """Count what the rules of this module speak about."""
    graph = model.graph
    producers = {output: node for node in graph.node for output in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    quantizers = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    convolutions = [node for node in graph.node if node.op_type == "Conv"]

    def has_pair(tensor: str) -> bool:
        dequantize = producers.get(tensor)
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            return False
        quantize = producers.get(dequantize.input[0])
        return quantize is not None and quantize.op_type == "QuantizeLinear"

    points = [numpy_helper.to_array(constants[node.input[2]]) for node in quantizers if len(node.input) > 2]
    scales = [numpy_helper.to_array(constants[node.input[1]]) for node in quantizers]
    biases = [producers.get(node.input[2]) for node in convolutions if len(node.input) > 2]
    return GraphSummary(
        convolutions=len(convolutions),
        quantised_convolutions=sum(has_pair(node.input[0]) and has_pair(node.input[1]) for node in convolutions),
        nonzero_zero_points=sum(bool(point.any()) for point in points),
        bias_dequantizers=sum(node is not None and node.op_type == "DequantizeLinear" for node in biases),
        casts=sum(node.op_type == "Cast" for node in graph.node),
        smallest_scale=min((float(scale.min()) for scale in scales), default=np.inf),
    )


def _checked(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with fresh shapes, after ONNX's own full check and the uniqueness of node names."""
    del model.graph.value_info[:]
    names = [node.name for node in model.graph.node]
    if len(set(names)) != len(names) or "" in names:
        raise PrecisionError("node names are not unique")
    try:
        model = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        onnx.checker.check_model(model, full_check=True)
    except INVALID as error:
        raise PrecisionError(f"the graph cannot be converted: {first_line(error)}") from error
    return model


def convert(
    precision: Precision,
    fp32_path: Path,
    calibration_path: Path | None,
    keep: Sequence[str] | None = None,
    fp32_scales: bool = False,
) -> onnx.ModelProto:
    """The FP32 graph at `fp32_path` in `precision`; INT8 needs `calibration_path`, `fp32_scales` is for INT8_FP16.

    Raises:
        PrecisionError: missing files, missing or unfit calibration data, unfit graph.
        GraphError: a damaged graph, or one of something else.
    """
    if not fp32_path.is_file():
        raise PrecisionError(f"no FP32 graph at {fp32_path}; make it: python build/export_onnx.py")
    model = load_detector(fp32_path)
    if precision is Precision.FP16:
        return to_fp16(model)
    if calibration_path is None:
        raise PrecisionError(f"{precision.value} needs --calibration-data calib_data.npy; FP16 is not put in its place")
    _, _, height, width = (dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim)
    frames = load_calibration(calibration_path, height or LARGEST.height, width or LARGEST.width)
    if precision is Precision.INT8:
        return to_int8(fp32_path, frames, keep, symmetric=False)
    return to_int8_fp16(fp32_path, frames, keep, fp32_scales=fp32_scales)
