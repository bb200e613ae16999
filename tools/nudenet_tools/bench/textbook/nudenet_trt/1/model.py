"""Textbook inference: ONNX Runtime as it comes, on all cores, one batch an execution."""

from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One session; the requests that Triton's dynamic batcher has joined run as one batch."""

    def initialize(self, args):
        """Load model.onnx."""
        model = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

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
