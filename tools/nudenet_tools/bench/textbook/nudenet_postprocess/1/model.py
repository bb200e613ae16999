"""Textbook postprocessing: threshold and non-maximum suppression, one picture after the other."""

import cv2
import numpy as np
import triton_python_backend_utils as pb_utils

LONGEST = 100


class TritonPythonModel:
    """As in Triton's tutorials."""

    def execute(self, requests):
        """One response a request."""
        responses = []
        for request in requests:
            output = pb_utils.get_input_tensor_by_name(request, "output").as_numpy()
            sizes = pb_utils.get_input_tensor_by_name(request, "size").as_numpy()
            detections = np.zeros((len(output), LONGEST, 6), np.float32)
            counts = np.zeros((len(output), 1), np.int32)
            for i, (candidates, (width, height)) in enumerate(zip(output, sizes, strict=True)):
                boxes, scores = [], []
                for x1, y1, x2, y2, _, score in candidates:
                    boxes.append([float(x1), float(y1), float(x2 - x1), float(y2 - y1)])
                    scores.append(float(score))
                kept = np.array(cv2.dnn.NMSBoxes(boxes, scores, 0.25, 0.45), np.int64)[:LONGEST]
                found = candidates[kept] * (width / 320, height / 180, width / 320, height / 180, 1, 1)
                detections[i, : len(kept)], counts[i, 0] = found, len(kept)
            tensors = [pb_utils.Tensor("detections", detections), pb_utils.Tensor("num_detections", counts)]
            responses.append(pb_utils.InferenceResponse(tensors))
        return responses
