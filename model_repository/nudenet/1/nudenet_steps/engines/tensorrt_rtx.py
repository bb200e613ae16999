"""TensorRT for RTX behind the detector's tensors, for GPUs of compute capability 8.0, 8.6, 8.9, 12.0 and newer.

``build/convert_to_tensorrt.py --runtime rtx`` builds the engine, on any machine. On the GPU, kernels are compiled when
the model loads; they are kept beside the engine, so that the next start takes seconds.
No Triton import: usable and testable alone.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nudenet_steps.cuda import runtime
from nudenet_steps.cuda.dlpack import GpuTensor, take
from nudenet_steps.cuda.execution import Execution, ExecutionError, Loader
from nudenet_steps.engines import EngineError
from nudenet_steps.preprocess.canvas import CANVASES, Canvas

FILE = "model.rtx.engine"
_MODULES = ("tensorrt_rtx", "tensorrt_rtx_bindings")  # the second is there without the first where only wheels are
_BUILD = "python build/convert_to_tensorrt.py --runtime rtx"


class TensorRtRtxEngine:
    """One engine, one execution context; each batch size of each canvas is compiled and captured before any request."""

    reason = ""  # no choice of precision

    def __init__(
        self,
        folder: Path,
        max_batch: int,
        precision: str = "auto",
        threads: int = 0,
        canvases: Sequence[Canvas] = CANVASES,
    ) -> None:
        """Load, compile what the kernel cache lacks, and warm up.

        Args:
            folder: holds model.rtx.engine and its passport.
            max_batch: largest number of pictures in one call.
            precision: auto, or the one that the engine was built in.
            threads: not used; the GPU does the work.
            canvases: which are served.

        Raises:
            EngineError: a missing file or library, another precision or canvas, a smaller batch, or a GPU that TensorRT
                for RTX or this engine does not serve.
            CudaError: no GPU, or out of memory.
        """
        path = folder / FILE
        passport = read_passport(path)
        self.precision = str(passport["precision"])
        if precision not in ("auto", self.precision):
            raise EngineError(
                f"{path} was built in {self.precision}, configured is {precision!r}: set precision to auto, or build "
                f"it again: {_BUILD} --precision {precision.split('+')[0]}"
            )
        if max_batch > passport["max_batch"]:
            raise EngineError(
                f"{path} takes batches of up to {passport['max_batch']}, max_batch_size is {max_batch}: build it "
                f"again: {_BUILD} --batch-size {max_batch}"
            )
        size = tuple(passport["input_shape"][1:])
        if -1 not in size and any(tuple(canvas) != size for canvas in canvases):
            raise EngineError(
                f"{path} takes {list(size)} only, configured are {[list(canvas) for canvas in canvases]}: build it "
                f"again: {_BUILD}"
            )
        trt = load_library()
        cuda = runtime.load()
        plan = path.read_bytes()
        loader = Loader(trt)
        check_validity(loader, cuda, path, plan)
        cache = folder / f"{FILE}.kernels"
        try:
            self._execution = Execution(loader, cuda, plan, max_batch, canvases, cache)
            self.name = f"TensorRT for RTX {trt.__version__}"
            try:
                self._execution.warm_up(max_batch)
            except OSError as error:  # a repository mounted read-only
                self.name += f" (each start compiles its kernels: {cache} cannot be written, {error.strerror})"
        except ExecutionError as error:
            raise EngineError(f"{path}: {error}") from error

    take = staticmethod(take)

    def infer(self, parts: Sequence[np.ndarray | GpuTensor], alone: bool = True) -> np.ndarray:
        """Run the parts as one batch.

        Args:
            parts: UINT8 or FP32 [n_i,3,height,width] each, of one type and of one canvas that is served; see `take`.
            alone: makes no difference, the GPU shares itself out.

        Returns:
            FP32 [sum n_i,candidates,6]; valid until the next call for the same canvas and type.
        """
        return self._execution.infer(parts)


def read_passport(path: Path) -> dict[str, Any]:
    """What the engine at `path` was built for.

    Raises:
        EngineError: engine or passport is missing or cannot be read.
    """
    if not path.is_file():
        raise EngineError(f"{path} is missing: {_BUILD}")
    try:
        passport = json.loads(path.with_name(f"{path.name}.json").read_text("utf-8"))
        return {
            name: passport[name] for name in ("precision", "max_batch", "input_shape", "tensorrt_version", "targets")
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineError(f"the passport of {path} cannot be read ({error!r}); build both anew: {_BUILD}") from error


def load_library() -> Any:
    """The module of TensorRT for RTX.

    Raises:
        EngineError: it is not installed.
    """
    reason: Exception | None = None
    for name in _MODULES:
        try:
            return importlib.import_module(name)
        except (ImportError, OSError) as error:  # OSError: a shared library is missing
            reason = error
    raise EngineError(f"TensorRT for RTX is not installed here ({reason}): pip install -r requirements/rtx.txt")


def check_validity(loader: Loader, cuda: Any, path: Path, plan: bytes) -> None:
    """Ask the library whether `plan` can run on this GPU.

    Raises:
        EngineError: it cannot, with the reason in words.
        CudaError: there is no GPU.
    """
    device = cuda.cudaGetDevice()
    attributes = cuda.cudaDeviceAttr
    capability = ".".join(
        str(cuda.cudaDeviceGetAttribute(attribute, device))
        for attribute in (attributes.cudaDevAttrComputeCapabilityMajor, attributes.cudaDevAttrComputeCapabilityMinor)
    )
    trt = loader.trt
    validity, bits = loader.runtime.get_engine_validity(plan)
    if validity != trt.EngineValidity.INVALID:
        return
    reasons = trt.EngineInvalidityDiagnostics
    found = [name for name in reasons.__members__ if bits & int(getattr(reasons, name).value)]
    if "UNSUPPORTED_CC" in found:
        raise EngineError(
            f"{path} does not run on this GPU, capability {capability}. If TensorRT for RTX serves it, build for it: "
            f"{_BUILD} --for sm{capability.replace('.', '')}; if not, build a TensorRT plan (make plan), or "
            "--config-name cuda"
        )
    if "VERSION_MISMATCH" in found:
        raise EngineError(f"{path} was built by another version than {trt.__version__}, which is here: {_BUILD}")
    raise EngineError(
        f"{path} does not run here ({', '.join(found).lower() or 'no reason given'}): see nvidia-smi for the driver, "
        f"or build it again: {_BUILD}"
    )
