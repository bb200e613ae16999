"""Textbook inference: ONNX Runtime as it comes, on all cores that it may use, one batch an execution."""

import os
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One session; the requests that Triton's dynamic batcher has joined run as one batch."""

    def initialize(self, args):
        """Load model.onnx."""
        model = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        options = onnxruntime.SessionOptions()
        allowed = len(os.sched_getaffinity(0))
        if allowed < (os.cpu_count() or 0):  # by itself it would pin a thread to every core, under taskset too
            options.intra_op_num_threads = allowed
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        """One response a request."""
        parts = [pb_utils.get_input_tensor_by_name(request, "input").as_numpy() for request in requests]
        (output,) = self.session.run(None, {"input": np.concatenate(parts)})
        responses, start = [], 0
        for part in parts:
            rows = output[start : start + len(part)]
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("output", rows)]))
            start += len(part)
        return responses
