"""Engines behind `nudenet_trt`: one module an engine, loaded when it is used, since each needs libraries of its own.

An engine takes FP32 [n,3,height,width] and answers FP32 [n,candidates,6] for any n up to its largest batch.
docs/adding-an-engine.md says how to add one.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

# The parameter `engine` of nudenet_trt -> module in this package, class.
ENGINES = {
    "openvino": ("openvino", "OpenVinoEngine"),
    "onnxruntime": ("onnxruntime_cpu", "OnnxRuntimeEngine"),
    "cuda": ("onnxruntime_cuda", "CudaEngine"),
    "rtx": ("tensorrt_rtx", "TensorRtRtxEngine"),
}


class EngineError(RuntimeError):
    """The engine cannot be built as asked; the message says what to do."""


class Engine(Protocol):
    """What `nudenet_trt` asks of an engine."""

    name: str  # engine and version, for the log
    precision: str  # the one in use

    def __init__(self, folder: Path, max_batch: int, precision: str = "auto", threads: int = 0) -> None:
        """Load from `folder`, the model's version folder, and be ready for every batch size up to `max_batch`.

        Raises:
            EngineError: unknown precision, a missing file or library, or unfit hardware.
        """

    def take(self, tensor: Any) -> Any:
        """What `infer` takes, out of Triton's tensor, without a copy where that is possible."""

    def infer(self, parts: Sequence[Any], alone: bool = True) -> np.ndarray:
        """Run the parts, FP32 [n_i,3,height,width] each, as one batch.

        Args:
            parts: one a request.
            alone: no other instance of the model is at work.

        Returns:
            FP32 [sum n_i,candidates,6]; valid until the next call.
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
