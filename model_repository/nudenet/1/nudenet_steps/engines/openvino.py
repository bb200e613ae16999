"""OpenVINO on the CPU, the engine of configs/cpu.pbtxt. No Triton import: usable and testable alone."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nudenet_steps.engines import EngineError, cpu_precision
from nudenet_steps.preprocess.canvas import CANVASES, Canvas

PRECISIONS = ("auto", "FP32", "BF16", "INT8")


def has_bf16() -> bool:
    """Whether this CPU multiplies BF16 natively, as OpenVINO sees it."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class _Plan(NamedTuple):
    """How one number of pictures is worked on."""

    requests: list[tuple[Any, int]]  # of OpenVINO, each bound to its share of the buffers; where that ends
    at_once: int


class _Compiler:
    """The network for one input type, compiled for whatever size is asked for."""

    def __init__(self, core: Any, path: Path, dtype: np.dtype, hint: str, threads: int) -> None:
        from openvino import Type
        from openvino.preprocess import PrePostProcessor

        self._core, self._hint, self._threads = core, hint, threads
        self._model = core.read_model(path)
        if dtype == np.uint8:
            processor = PrePostProcessor(self._model)
            processor.input().tensor().set_element_type(Type.u8)
            processor.input().preprocess().convert_element_type(Type.f32).scale(255.0)
            self._model = processor.build()

    def __call__(self, count: int, canvas: Canvas, streams: int) -> Any:
        """A compiled model for `count` pictures at a time in each of `streams` groups of threads."""
        model = self._model.clone()  # shares the weights: 12 MB less each
        model.reshape([count, 3, *canvas])  # static shapes are faster than dynamic ones and never recompile
        options = {
            "INFERENCE_PRECISION_HINT": self._hint,
            "INFERENCE_NUM_THREADS": self._threads,
            "NUM_STREAMS": streams,
            "ENABLE_CPU_PINNING": False,  # several instances would be pinned to the same cores
        }
        return self._core.compile_model(model, "CPU", options)

    def fixed_canvas(self) -> Canvas | None:
        """The one size that the graph takes; None where it takes any."""
        height, width = list(self._model.input(0).partial_shape)[2:]
        return Canvas(height.get_length(), width.get_length()) if height.is_static and width.is_static else None


class _Network:
    """Buffers, compiled models and plans for one canvas and input type.

    Args:
        compiler: for the input type.
        canvas: the size.
        dtype: UINT8 or FP32.
        max_batch: largest number of pictures.
        threads: of this engine.
        lean: compile for single pictures only, side by side in streams: two models instead of a handful, each for 20 to
            40 MB, at up to a tenth less throughput. Each is compiled when it is first needed.
    """

    def __init__(
        self, compiler: _Compiler, canvas: Canvas, dtype: np.dtype, max_batch: int, threads: int, lean: bool
    ) -> None:
        self._compiler, self._canvas, self._threads, self._lean = compiler, canvas, threads, lean
        self._max_batch = max_batch
        self._models: dict[tuple[int, int], Any] = {(1, 1): compiler(1, canvas, 1)}
        self._input = np.zeros((max_batch, 3, *canvas), dtype)
        self._output = np.zeros((max_batch, *self._models[1, 1].output(0).shape[1:]), np.float32)
        self._plans: dict[tuple[int, bool], _Plan] = {}  # by number of pictures, and whether nobody else is at work
        self.infer([self._input[:1]])
        if not lean:
            for alone in (True, False):
                for count in range(1, max_batch + 1):
                    self.infer([self._input[:count]], alone)

    def infer(self, parts: Sequence[np.ndarray], alone: bool = True) -> np.ndarray:
        """See `OpenVinoEngine.infer`."""
        count, filled, remaining = sum(len(part) for part in parts), 0, iter(parts)
        plan = self._plans.get((count, alone))
        if plan is None:
            plan = self._plans[count, alone] = self._lean_plan(count, alone) if self._lean else self._plan(count, alone)
        requests, at_once = plan
        for i, (request, end) in enumerate(requests):
            while filled < end:
                part = next(remaining)
                self._input[filled : filled + len(part)] = part
                filled += len(part)
            if i >= at_once:
                requests[i - at_once][0].wait()
            request.start_async()  # while the next share is copied
        for request, _ in requests:
            request.wait()
        return self._output[:count]

    def _plan(self, count: int, alone: bool) -> _Plan:
        streams = streams_for(count, self._threads)
        whole = self._plans.get((count, True)) or self._bound(shares(count, self._threads), streams)
        half = self._threads // 2
        if alone or not half:  # of one thread there is no half
            return whole
        # A model of twice as many streams gives each half of the threads. Each that is compiled takes up to 40 MB.
        streams, halves = 2 * streams_for(count, half), shares(count, half)
        if count == 1 or all((end - start, streams) in self._models for start, end in halves):
            return self._bound(halves, streams)
        return _Plan(whole.requests, max(1, len(whole.requests) // 2))

    def _lean_plan(self, count: int, alone: bool) -> _Plan:
        """Every picture a share of its own."""
        if count == 1 and (alone or self._threads == 1):
            return self._bound([(0, 1)], 1)
        streams = streams_for(self._max_batch, self._threads)
        requests, _ = self._bound([(i, i + 1) for i in range(count)], streams)
        return _Plan(requests, max(1, streams if alone else streams // 2))

    def _bound(self, edges: Sequence[tuple[int, int]], streams: int) -> _Plan:
        """Requests for these shares of the buffers, all at once."""
        import openvino

        requests = []
        for start, end in edges:
            key = (end - start, streams)
            if key not in self._models:
                self._models[key] = self._compiler(end - start, self._canvas, streams)
            request = self._models[key].create_infer_request()
            request.set_input_tensor(openvino.Tensor(self._input[start:end], shared_memory=True))
            request.set_output_tensor(openvino.Tensor(self._output[start:end], shared_memory=True))
            requests.append((request, end))
        return _Plan(requests, len(requests))


class OpenVinoEngine:
    """OpenVINO on the CPU. One picture gets all cores; of several, each core takes its share.

    Threads that work on one picture wait for each other after every layer, so pictures side by side are a fifth faster.
    For the same reason, of two engines at work each had better take half of the cores.

    The first canvas is compiled for every batch size and run once before the first request; the others for one picture,
    for several when they come. FP32 input is for direct clients and compiled when it comes.
    """

    def __init__(
        self,
        folder: Path,
        max_batch: int,
        precision: str = "auto",
        threads: int = 0,
        canvases: Sequence[Canvas] = CANVASES,
    ) -> None:
        """Compile and warm up.

        Args:
            folder: holds model.dynamic.onnx, and model.int8.onnx for precision INT8.
            max_batch: largest number of pictures in one call.
            precision: one of `PRECISIONS`; auto is the fastest that keeps the accuracy goal, see `cpu_precision`.
            threads: CPU threads; 0 uses all cores.
            canvases: which are served; the first is expected most.

        Raises:
            EngineError: unknown precision, missing or unfit file, or BF16 on a CPU without it.
        """
        import openvino

        if precision not in PRECISIONS:
            raise EngineError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
        native = has_bf16()
        self._threads = threads or len(os.sched_getaffinity(0))
        self.reason = ""
        if precision == "auto":
            precision, self.reason = cpu_precision.choose(folder, native)
        self._path = folder / (cpu_precision.INT8_GRAPH if precision == "INT8" else "model.dynamic.onnx")
        if not self._path.is_file():
            script = "precision.py --precision INT8" if precision == "INT8" else "export_onnx.py"
            raise EngineError(f"{self._path} is missing: run python build/{script}")
        self._core = openvino.Core()
        if precision == "BF16" and not native:
            raise EngineError("this CPU has no BF16 instructions: use precision auto or FP32")
        # What INT8 leaves unquantised gains from BF16 too; the box decode stays FP32 by the graph's design.
        self._hint = "bf16" if native and precision != "FP32" else "f32"
        self.name = f"OpenVINO {openvino.__version__.split('-')[0]}"
        self.precision = precision
        self._max_batch, self._canvases = max_batch, tuple(canvases)
        self._compilers: dict[np.dtype, _Compiler] = {}
        self._networks: dict[tuple[Canvas, np.dtype], _Network] = {}
        pixels = np.dtype(np.uint8)
        fixed = self._compiler(pixels).fixed_canvas()
        if fixed and self._canvases != (fixed,):
            raise EngineError(
                f"{self._path} takes {fixed.height}x{fixed.width} only, {len(self._canvases)} canvases are served: "
                "make it of model.dynamic.onnx, see build/precision.py --help"
            )
        for canvas in self._canvases:
            self._network(canvas, pixels)

    def _compiler(self, dtype: np.dtype) -> _Compiler:
        if dtype not in self._compilers:
            self._compilers[dtype] = _Compiler(self._core, self._path, dtype, self._hint, self._threads)
        return self._compilers[dtype]

    def _network(self, canvas: Canvas, dtype: np.dtype) -> _Network:
        key = (canvas, dtype)
        if key not in self._networks:
            lean = canvas != self._canvases[0] or dtype != np.uint8
            self._networks[key] = _Network(self._compiler(dtype), canvas, dtype, self._max_batch, self._threads, lean)
        return self._networks[key]

    take = staticmethod(np.from_dlpack)  # a view of the memory of Triton's tensor; its as_numpy is a copy

    def infer(self, parts: Sequence[np.ndarray], alone: bool = True) -> np.ndarray:
        """Run the parts as one batch.

        Args:
            parts: UINT8 or FP32 [n_i,3,height,width] each, of one type and of one canvas that is served.
            alone: whether to use all threads; else half, since another engine is at work on the same cores.

        Returns:
            FP32 [sum n_i,candidates,6]; valid until the next call for the same canvas and type.
        """
        first = parts[0]
        return self._network(Canvas(*first.shape[2:]), first.dtype).infer(parts, alone)


def streams_for(pictures: int, threads: int) -> int:
    """How many groups of threads work side by side: a power of two, so that few models need compiling."""
    return 1 << (min(pictures, threads).bit_length() - 1)


def shares(pictures: int, threads: int) -> list[tuple[int, int]]:
    """Which pictures each group of threads takes, as [start, end): shares that differ by one at most."""
    streams = streams_for(pictures, threads)
    edges = [i * pictures // streams for i in range(streams + 1)]
    return list(itertools.pairwise(edges))
