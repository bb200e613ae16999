"""ONNX Runtime on an NVIDIA GPU behind the detector's tensors: one captured CUDA graph per batch size.

The stand-in for a host that has a GPU but no TensorRT plan. No Triton import: usable and testable alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nudenet_steps.cuda import runtime
from nudenet_steps.cuda.batch import Batch
from nudenet_steps.cuda.dlpack import GpuTensor
from nudenet_steps.cuda.page_lock import PageLock
from nudenet_steps.engines import EngineError

FILES = {"FP32": "model.onnx", "FP16": "model.fp16.onnx"}


class CudaEngine:
    """One session; every batch size is captured on the same memory, see `Batch`."""

    def __init__(self, folder: Path, max_batch: int, precision: str = "FP16", threads: int = 0) -> None:
        """Load, then capture a graph for every batch size.

        Args:
            folder: holds model.onnx, and model.fp16.onnx for precision FP16.
            max_batch: largest number of pictures in one call.
            precision: FP32 or FP16; auto is FP16.
            threads: not used; the GPU does the work.

        Raises:
            EngineError: unknown precision, missing file, or ONNX Runtime without CUDA.
            CudaError: no GPU, or out of memory.
        """
        import onnxruntime

        self.precision = "FP16" if precision == "auto" else precision
        if self.precision not in FILES:
            raise EngineError(f"precision must be one of auto, {', '.join(FILES)}, got {precision!r}")
        path = folder / FILES[self.precision]
        if not path.is_file():
            raise EngineError(f"{path} is missing: run python build/precision.py --precision {self.precision}")
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise EngineError("this ONNX Runtime has no CUDA: pip install -r requirements/cuda.txt")
        self.name = f"ONNX Runtime {onnxruntime.__version__} on CUDA"
        self._cuda = runtime.load()
        self._stream = self._cuda.cudaStreamCreateWithFlags(self._cuda.cudaStreamNonBlocking)
        # Heuristic choice with channels last: 0.9 ms at batch 8 on an H100; exhaustive search takes 1.9 ms there, since
        # it leaves the fused convolutions aside. Bias in the convolutions' kernels: 6% less at batch 1, for 5 s more to
        # load; tried with FP16 only. TF32 off: FP32 means FP32.
        provider = {
            "user_compute_stream": str(int(self._stream)),
            "enable_cuda_graph": "1",
            "use_tf32": "0",
            "cudnn_conv_algo_search": "HEURISTIC",
            "prefer_nhwc": "1",
            "fuse_conv_bias": "1" if self.precision == "FP16" else "0",
        }
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(path, options, providers=[("CUDAExecutionProvider", provider)])
        if session.get_providers()[0] != "CUDAExecutionProvider":
            raise EngineError("ONNX Runtime could not start on the GPU; see the warnings above")
        shape = (max_batch, *session.get_inputs()[0].shape[1:])
        output_shape = (max_batch, *session.get_outputs()[0].shape[1:])
        self._batch = Batch(self._cuda, PageLock(self._cuda), self._stream, shape, output_shape)
        self._runs = [None, *(self._capture(onnxruntime, session, size) for size in range(1, max_batch + 1))]

    def _capture(self, onnxruntime: Any, session: Any, size: int) -> Any:
        """A function that replays the graph of one batch size."""
        binding = session.io_binding()
        batch = self._batch
        binding.bind_input("input", "cuda", 0, np.float32, batch.input_shape(size), batch.input_address)
        binding.bind_output("output", "cuda", 0, np.float32, batch.output_shape(size), batch.output_address)
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(size))
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")  # one wait, after the copy back
        for _ in range(3):  # choose algorithms, capture, replay once
            session.run_with_iobinding(binding, options)
            self._cuda.cudaStreamSynchronize(self._stream)
        return lambda: session.run_with_iobinding(binding, options)

    def replay(self, size: int) -> None:
        """Start the graph of batch `size` on what lies in the input; for benchmarks."""
        self._runs[size]()

    @staticmethod
    def take(tensor: Any) -> np.ndarray | GpuTensor:
        """What `infer` takes, out of Triton's tensor: a view of its memory; its ``as_numpy`` is a copy."""
        return np.from_dlpack(tensor) if tensor.is_cpu() else GpuTensor(tensor.to_dlpack())

    def infer(self, parts: Sequence[np.ndarray | GpuTensor], alone: bool = True) -> np.ndarray:
        """Run the parts as one batch.

        Args:
            parts: FP32 [n_i,3,height,width] each, see `take`.
            alone: makes no difference, the GPU shares itself out.

        Returns:
            FP32 [sum n_i,candidates,6]; valid until the next call.
        """
        count = self._batch.send(parts)
        self.replay(count)
        return self._batch.fetch(count)
