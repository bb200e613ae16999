"""ONNX Runtime on an NVIDIA GPU behind the detector's tensors: one captured CUDA graph per batch size and canvas.

The stand-in for a host that has a GPU but no TensorRT plan. No Triton import: usable and testable alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nudenet_steps.cuda import runtime
from nudenet_steps.cuda.batch import Batch
from nudenet_steps.cuda.dlpack import GpuTensor, take
from nudenet_steps.cuda.page_lock import PageLock
from nudenet_steps.engines import EngineError
from nudenet_steps.preprocess.canvas import CANVASES, Canvas

FILES = {"FP32": "model.dynamic.onnx", "FP16": "model.fp16.onnx"}
_PIXELS = np.dtype(np.uint8)


class CudaEngine:
    """One session for each canvas and input type; every batch size is captured on the same memory, see `Batch`."""

    reason = ""  # no choice of precision

    def __init__(
        self,
        folder: Path,
        max_batch: int,
        precision: str = "FP16",
        threads: int = 0,
        canvases: Sequence[Canvas] = CANVASES,
    ) -> None:
        """Load, then capture a graph for every batch size and canvas of UINT8 pixels; of FP32 input when it comes.

        Args:
            folder: holds model.dynamic.onnx, and model.fp16.onnx for precision FP16.
            max_batch: largest number of pictures in one call.
            precision: FP32 or FP16; auto is FP16.
            threads: not used; the GPU does the work.
            canvases: which are served.

        Raises:
            EngineError: unknown precision, missing or unfit file, or ONNX Runtime without CUDA.
            CudaError: no GPU, or out of memory.
        """
        import onnxruntime

        self.precision = "FP16" if precision == "auto" else precision
        if self.precision not in FILES:
            raise EngineError(f"precision must be one of auto, {', '.join(FILES)}, got {precision!r}")
        self._path = folder / FILES[self.precision]
        if not self._path.is_file():
            script = "export_onnx.py" if self.precision == "FP32" else "precision.py --precision FP16"
            raise EngineError(f"{self._path} is missing: run python build/{script}")
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise EngineError("this ONNX Runtime has no CUDA: pip install -r requirements/cuda.txt")
        self.name = f"ONNX Runtime {onnxruntime.__version__} on CUDA"
        self._cuda = runtime.load()
        self._page_lock = PageLock(self._cuda)
        self._stream = self._cuda.cudaStreamCreateWithFlags(self._cuda.cudaStreamNonBlocking)
        self._max_batch = max_batch
        self._networks: dict[tuple[Canvas, np.dtype], _Network] = {}
        for canvas in canvases:
            self._network(canvas, _PIXELS)

    def _network(self, canvas: Canvas, dtype: np.dtype) -> _Network:
        key = (canvas, dtype)
        if key not in self._networks:
            session = self._session(canvas, dtype)
            shape, output_shape = (
                (self._max_batch, *tensors[0].shape[1:]) for tensors in (session.get_inputs(), session.get_outputs())
            )
            batch = Batch(self._cuda, self._page_lock, self._stream, shape, output_shape, dtype)
            self._networks[key] = _Network(session, batch, self._max_batch, self._synchronize)
        return self._networks[key]

    def _synchronize(self) -> None:
        self._cuda.cudaStreamSynchronize(self._stream)

    def _session(self, canvas: Canvas, dtype: np.dtype) -> Any:
        """The network for one canvas and input type."""
        import onnx
        import onnxruntime

        from nudenet_steps.engines.onnx_graphs import fix_canvas, take_pixels

        # Heuristic choice with channels last: 0.8 ms at batch 8 on an H100; exhaustive search takes 1.9 ms there, since
        # it leaves the fused convolutions aside. TF32 off for FP32; the option takes the tensor cores from FP16
        # convolutions, too. Bias in the convolutions' kernels beside them takes eight times as long to load, and the
        # graphs then hang. See docs/gpu.md.
        provider = {
            "user_compute_stream": str(int(self._stream)),
            "enable_cuda_graph": "1",
            "use_tf32": "1" if self.precision == "FP16" else "0",
            "cudnn_conv_algo_search": "HEURISTIC",
            "prefer_nhwc": "1",
        }
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        graph = onnx.load(self._path)
        try:
            graph = fix_canvas(take_pixels(graph) if dtype == _PIXELS else graph, canvas)
        except ValueError as error:
            raise EngineError(
                f"{self._path}: {error}; make it of model.dynamic.onnx, see build/precision.py"
            ) from error
        session = onnxruntime.InferenceSession(
            graph.SerializeToString(), options, providers=[("CUDAExecutionProvider", provider)]
        )
        if session.get_providers()[0] != "CUDAExecutionProvider":
            raise EngineError("ONNX Runtime could not start on the GPU; see the warnings above")
        return session

    def replay(self, size: int, canvas: Canvas = CANVASES[0]) -> None:
        """Start the graph of batch `size` on what lies in the input of UINT8 pixels; for benchmarks."""
        self._networks[canvas, _PIXELS].replay(size)

    take = staticmethod(take)

    def infer(self, parts: Sequence[np.ndarray | GpuTensor], alone: bool = True) -> np.ndarray:
        """Run the parts as one batch.

        Args:
            parts: UINT8 or FP32 [n_i,3,height,width] each, of one type and of one canvas that is served; see `take`.
            alone: makes no difference, the GPU shares itself out.

        Returns:
            FP32 [sum n_i,candidates,6]; valid until the next call for the same canvas and type.
        """
        first: Any = parts[0]
        network = self._network(Canvas(*first.shape[2:]), first.dtype)
        count = network.batch.send(parts)
        network.replay(count)
        return network.batch.fetch(count)


class _Network:
    """The captured graphs of one session on the memory of `batch`."""

    def __init__(self, session: Any, batch: Batch, max_batch: int, synchronize: Any) -> None:
        self.batch, self._session, self._synchronize = batch, session, synchronize
        self._runs = [None, *(self._capture(size) for size in range(1, max_batch + 1))]

    def _capture(self, size: int) -> Any:
        """A function that replays the graph of one batch size."""
        import onnxruntime

        binding, source = self._session.io_binding(), self._session.get_inputs()[0]
        dtype = np.uint8 if source.type == "tensor(uint8)" else np.float32
        batch = self.batch
        binding.bind_input(source.name, "cuda", 0, dtype, batch.input_shape(size), batch.input_address)
        binding.bind_output("output", "cuda", 0, np.float32, batch.output_shape(size), batch.output_address)
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(size))
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")  # one wait, after the copy back
        for _ in range(3):  # choose algorithms, capture, replay once
            self._session.run_with_iobinding(binding, options)
            self._synchronize()
        return lambda: self._session.run_with_iobinding(binding, options)

    def replay(self, size: int) -> None:
        """Start the graph of batch `size` on what lies in the input."""
        self._runs[size]()
