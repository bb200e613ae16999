"""Engines behind `nudenet_trt`: one module an engine, loaded when it is used, since each needs libraries of its own.

An engine takes pictures of one canvas, UINT8 or FP32 [n,3,height,width], and answers FP32 [n,candidates,6] for any n
up to its largest batch. docs/adding-an-engine.md says how to add one.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nudenet_steps.preprocess.canvas import CANVASES, Canvas, smallest

# The parameter `engine` of nudenet_trt -> module in this package, class.
ENGINES = {
    "openvino": ("openvino", "OpenVinoEngine"),
    "onnxruntime": ("onnxruntime_cpu", "OnnxRuntimeEngine"),
    "stand_in_fast": ("stand_in", "FastStandIn"),
    "stand_in_slow": ("stand_in", "SlowStandIn"),
    "cuda": ("onnxruntime_cuda", "CudaEngine"),
    "rtx": ("tensorrt_rtx", "TensorRtRtxEngine"),
}
INPUTS = {"pixels": np.uint8, "input": np.float32}  # of nudenet_trt; exactly one comes with a request


class EngineError(RuntimeError):
    """The engine cannot be built as asked; the message says what to do."""


class Engine(Protocol):
    """What `nudenet_trt` asks of an engine."""

    name: str  # engine and version, for the log
    precision: str  # the one in use
    reason: str  # why that is what `auto` means here, for the log; empty where there was no choice

    def __init__(
        self,
        folder: Path,
        max_batch: int,
        precision: str = "auto",
        threads: int = 0,
        canvases: Sequence[Canvas] = CANVASES,
    ) -> None:
        """Load from `folder`, the model's version folder, and be ready for every batch size up to `max_batch`.

        Raises:
            EngineError: unknown precision, a missing file or library, or unfit hardware.
        """

    def take(self, tensor: Any) -> Any:
        """What `infer` takes out of Triton's tensor, if possible without a copy.

        It has ``shape`` and a hashable ``dtype``, and can be cut like ``part[1:2, :, :180, :320]``.
        """

    def infer(self, parts: Sequence[Any], alone: bool = True) -> np.ndarray:
        """Run the parts as one batch.

        Args:
            parts: [n_i,3,height,width] each: all of one canvas, and all UINT8 0..255 or FP32 in [0,1]. They are views
                of larger pictures where a request has several canvases, see `split`.
            alone: no other instance of the model is at work.

        Returns:
            FP32 [sum n_i,candidates,6]; valid until the next call for the same canvas and type.
        """


def engine_class(name: str) -> type[Engine]:
    """The class behind `name`; its libraries are imported when it is made.

    Raises:
        EngineError: unknown name.
    """
    if name not in ENGINES:
        raise EngineError(f"unknown engine {name!r}; known: {', '.join(ENGINES)}")
    module, attribute = ENGINES[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)


def choose_input(tensors: Mapping[str, Any]) -> Any:
    """The one tensor among `tensors` of a request, by input name; absent inputs are None.

    Raises:
        ValueError: none or both were sent.
    """
    sent = [name for name in INPUTS if tensors.get(name) is not None]
    if len(sent) != 1:
        raise ValueError(
            "nudenet_trt takes exactly one of its inputs, 'pixels' (UINT8, 0..255) or 'input' (FP32, in [0,1]); "
            f"this request has {'both' if sent else 'none'}"
        )
    return tensors[sent[0]]


def check_canvas(shape: Sequence[int], canvases: Sequence[Canvas]) -> None:
    """Refuse a batch [n,3,height,width] of a size that is not served.

    Raises:
        ValueError: names what is.
    """
    if tuple(shape[2:]) not in canvases or shape[1] != 3:
        sizes = ", ".join(f"[n,3,{canvas.height},{canvas.width}]" for canvas in canvases)
        raise ValueError(f"shape {list(shape)} is not served by nudenet_trt; send one of {sizes}")


def split(part: Any, geometry: np.ndarray | None, canvases: Sequence[Canvas]) -> list[Any]:
    """The pictures of one request on the canvases that they would have alone, so that no answer depends on neighbours.

    Args:
        part: [n,3,height,width], on the smallest canvas that holds all of its pictures.
        geometry: FP32 [n,4] of these pictures, as `nudenet_preprocess` answers it; None from whoever calls the detector
            directly: then they stay as they are.
        canvases: which are served.

    Returns:
        `part` itself, or a view [1,3,height,width] for each picture.

    Raises:
        ValueError: geometry of other pictures.
    """
    count, _, *size = part.shape
    if geometry is None or count == 1:
        return [part]
    if geometry.shape != (count, 4) or not (np.isfinite(geometry) & (geometry >= 0)).all():
        raise ValueError(f"'geometry' must be what nudenet_preprocess answers for the same {count} pictures")
    together = Canvas(*size)
    own = [
        smallest([(width, height)], canvases) if width and height else together  # refused: black
        for *_, width, height in geometry.tolist()
    ]
    if all(canvas == together for canvas in own):
        return [part]
    for i, canvas in enumerate(own):
        if canvas.height > together.height or canvas.width > together.width:
            raise ValueError(
                f"'geometry' says that picture {i} takes {canvas.height}x{canvas.width}; "
                f"the pixels are {together.height}x{together.width}"
            )
    return [part[i : i + 1, :, : canvas.height, : canvas.width] for i, canvas in enumerate(own)]


def join(outputs: Sequence[np.ndarray]) -> np.ndarray:
    """The candidates of one request, FP32 [n,candidates,6], of its pieces' outputs; zeros fill up smaller canvases."""
    if len(outputs) == 1:
        return outputs[0]
    joined = np.zeros((len(outputs), max(output.shape[1] for output in outputs), 6), np.float32)
    for row, output in zip(joined, outputs, strict=True):
        row[: output.shape[1]] = output[0]
    return joined


def groups(parts: Sequence[Any]) -> list[list[int]]:
    """Which of `parts` can run as one batch: indices by canvas and type, in order of appearance."""
    found: dict[tuple, list[int]] = {}
    for i, part in enumerate(parts):
        found.setdefault((tuple(part.shape[1:]), part.dtype), []).append(i)
    return list(found.values())
