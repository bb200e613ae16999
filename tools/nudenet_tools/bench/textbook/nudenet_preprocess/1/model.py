"""Textbook preprocessing: decode the whole picture, resize, scale to [0,1], one request after the other."""

import cv2
import numpy as np
import triton_python_backend_utils as pb_utils

WIDTH, HEIGHT = 320, 180


class TritonPythonModel:
    """As in Triton's tutorials."""

    def execute(self, requests):
        """One response a request."""
        responses = []
        for request in requests:
            files = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()
            pictures, sizes = [], []
            for data in files[:, 0]:
                pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
                sizes.append((pixels.shape[1], pixels.shape[0]))
                pixels = cv2.cvtColor(cv2.resize(pixels, (WIDTH, HEIGHT)), cv2.COLOR_BGR2RGB)
                pictures.append(pixels.transpose(2, 0, 1).astype(np.float32) / 255)
            tensors = [
                pb_utils.Tensor("input", np.stack(pictures)),
                pb_utils.Tensor("size", np.array(sizes, np.float32)),
            ]
            responses.append(pb_utils.InferenceResponse(tensors))
        return responses
