"""Triton glue of the preprocessing step: JPEG bytes to `input`, `geometry` and `error`."""

import gc
import json
import time
from reprlib import repr as quoted  # shortened: gRPC drops errors of more than 8 kB

import cv2
import jpeg
import letterbox
import numpy as np
import triton_python_backend_utils as pb_utils
from counters import Counters

ON_ERROR = ("fail", "report")
METRICS = {
    "nudenet_decoded_total": ("Pictures decoded", None),
    "nudenet_decode_seconds_total": ("Seconds spent on reading and decoding accepted pictures", None),
    "nudenet_megapixels_total": ("Millions of pixels in accepted pictures, as sent", None),
    "nudenet_rejected_total": ("Pictures refused", "reason"),
}


class TritonPythonModel:
    """One try per request, one response per request."""

    def initialize(self, args):
        cv2.setNumThreads(1)  # instances are the parallelism; OpenCV ignores OMP_NUM_THREADS
        config = json.loads(args["model_config"])
        _, height, width = pb_utils.get_output_config_by_name(config, "input")["dims"]
        value = {key: entry["string_value"] for key, entry in config["parameters"].items()}
        self.limits = jpeg.Limits(
            int(value["max_bytes"]), int(value["max_pixels"]), int(value["max_scans"]), int(value["max_scan_work"])
        )
        self.strict = value["strict"] == "true"
        self.writer = letterbox.Writer(height, width)
        self.counters = Counters(pb_utils, METRICS)
        gc.collect()
        gc.freeze()  # what is alive now stays: no collection needs to look at it again

    def execute(self, requests):
        responses = [self._respond(request) for request in requests]
        self.counters.flush()
        return responses

    def _respond(self, request):
        try:
            outputs = self._process(request)
        except ValueError as error:
            return _failure(str(error), pb_utils.TritonError.INVALID_ARG)
        except Exception as error:
            pb_utils.Logger.log_error(f"nudenet_preprocess: {error!r}")
            return _failure(f"preprocessing failed: {error!r}", pb_utils.TritonError.INTERNAL)
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in outputs.items()])

    def _process(self, request):
        report = _on_error(request) == "report"
        files = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()
        if files.ndim != 2 or files.shape[1] != 1:
            raise ValueError(f"image must have shape [batch,1], got {list(files.shape)}")
        tensor = np.empty((len(files), 3, self.writer.height, self.writer.width), np.float32)
        geometry = np.zeros((len(files), 4), np.float32)
        errors = np.full((len(files), 1), b"", np.object_)
        for i, data in enumerate(files[:, 0]):
            try:
                geometry[i] = self._read(data, tensor[i])
            except jpeg.JpegError as error:
                self.counters.add("nudenet_rejected_total", label=error.reason)
                if not report:
                    raise ValueError(f"image {i} of {len(files)}: {error}") from error
                tensor[i] = 0
                errors[i, 0] = str(error).encode()
        return {"input": tensor, "geometry": geometry, "error": errors}

    def _read(self, data, out):
        """Decode one file into `out`; returns its geometry."""
        begin = time.perf_counter()
        jpeg.check_size(data, self.limits)
        header = jpeg.read_header(data)
        jpeg.check_limits(header, self.limits)
        box = letterbox.fit(*header.upright_size, self.writer.width, self.writer.height)
        self.writer.write(jpeg.decode(data, header, box.width, box.height, self.strict), box, out)
        self.counters.add("nudenet_decoded_total")
        self.counters.add("nudenet_decode_seconds_total", time.perf_counter() - begin)
        self.counters.add("nudenet_megapixels_total", header.width * header.height / 1e6)
        return box.geometry


def _on_error(request):
    parameters = json.loads(request.parameters() or "{}")
    value = parameters.get("on_error", "fail")
    if value not in ON_ERROR:
        raise ValueError(f"on_error must be one of {', '.join(ON_ERROR)}, got {quoted(value)}")
    return value


def _failure(message, code):
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
