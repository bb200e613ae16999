"""Triton glue of the preprocessing step: JPEG bytes to `pixels` (or `input`), `geometry` and `error`."""

import gc
import json
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import triton_python_backend_utils as pb_utils

# Triton puts only this folder on the path; the code of all steps is the neighbour's.
STEPS = Path(__file__).resolve().parents[2] / "nudenet" / "1"
if not (STEPS / "nudenet_steps").is_dir():
    raise ImportError(
        f"{STEPS / 'nudenet_steps'} is missing: serve the whole model repository from a disk. Triton copies models out "
        "of s3://, gs:// and as:// one at a time: copy the repository to a disk first"
    )
sys.path.append(str(STEPS))

from nudenet_steps.preprocess import cpu_decoder, decoders, encoding, jpeg
from nudenet_steps.preprocess.batch import Batch
from nudenet_steps.preprocess.canvas import served
from nudenet_steps.serving import failures, model_parameters, package, request_parameters
from nudenet_steps.serving.backpressure import Backpressure
from nudenet_steps.serving.heartbeat import Heartbeat
from nudenet_steps.serving.metrics import Counters

ON_ERROR = ("fail", "report")
METRICS = {
    "nudenet_decoded_total": ("Pictures decoded", ()),
    "nudenet_decode_seconds_total": ("Seconds spent on reading and decoding accepted pictures", ()),
    "nudenet_megapixels_total": ("Millions of pixels in accepted pictures, as sent", ()),
    "nudenet_rejected_total": ("Pictures refused", ("reason",)),
    **failures.METRICS,
}


class TritonPythonModel:
    """One try per request, one response per request."""

    def initialize(self, args):
        cv2.setNumThreads(1)  # instances are the parallelism; OpenCV ignores OMP_NUM_THREADS
        config = json.loads(args["model_config"])
        # UINT8 pixels where the detector takes them, FP32 input where it is a plan as specified.
        produced = {output["name"]: output for output in config["output"]}
        self.output = "pixels" if "pixels" in produced else "input"
        self.canvases = served([int(dim) for dim in produced[self.output]["dims"]])
        value = model_parameters.parse(config, model_parameters.PREPROCESS)
        self.limits = jpeg.Limits(value["max_bytes"], value["max_pixels"], value["max_scans"], value["max_scan_work"])
        dtype = np.uint8 if self.output == "pixels" else np.float32
        self.decoder = decoders.make(
            value["decoder"], value["strict"], config["max_batch_size"], dtype, int(args["model_instance_device_id"])
        )
        self.package = package.publish(pb_utils)
        self.counters = Counters(pb_utils, METRICS)
        self.counters.add("nudenet_rejected_total", 0, failures.INTERNAL)  # a rate needs a first value
        self.failures = failures.Failures(pb_utils, self.counters, "nudenet_preprocess")
        self.backpressure = Backpressure(pb_utils, value["max_in_flight"])
        self.heartbeat = Heartbeat(args["model_instance_name"])
        gc.collect()
        gc.freeze()  # what is alive now stays: no collection needs to look at it again

    def finalize(self):
        self.heartbeat.close()

    def is_ready(self):
        return self.heartbeat.is_well()

    def execute(self, requests):
        with self.heartbeat:
            responses = self._answer(requests)
            if not self.backpressure.is_full():
                return responses
            for request, response in zip(requests, responses, strict=True):
                request.get_response_sender().send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        self.backpressure.wait()  # holding no request: the most urgent one is taken next
        return None

    def _answer(self, requests):
        # Headers of all requests first, then one call for all pictures: a GPU decodes a batch as fast as one.
        prepared = [self._guarded(self._prepare, request) for request in requests]
        batches = [batch for batch in prepared if isinstance(batch, Batch)]
        self._decode([picture for batch in batches for picture in batch.pictures.values()])
        decoded_at = self.backpressure.enter(sum(len(batch.tensor) for batch in batches))
        responses = []
        for batch in prepared:
            if isinstance(batch, Batch):
                responses.append(self._guarded(self._respond, batch, decoded_at))
                if responses[-1].has_error():
                    self.backpressure.withdraw(decoded_at, len(batch.tensor))
            else:
                responses.append(batch)
        self.backpressure.publish()
        self.counters.flush()
        return responses

    def _guarded(self, step, *arguments):
        """What `step` returns, or the response that says why it failed."""
        try:
            return step(*arguments)
        except Exception as error:
            return self.failures.response(error)

    def _prepare(self, request):
        """Read and check the headers of one request."""
        given = request_parameters.read(request)
        report = request_parameters.choice(given, "on_error", ON_ERROR) == "report"
        is_base64 = request_parameters.choice(given, "encoding", encoding.ENCODINGS) == encoding.BASE64
        files = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()
        if files.ndim != 2 or files.shape[1] != 1:
            raise failures.RequestError(f"image must have shape [batch,1], got {list(files.shape)}", "shape")
        data = list(files[:, 0])
        if is_base64:
            data = [encoding.decode(one, self.limits.max_bytes) for one in data]
        tensor, found = cpu_decoder.lay_out(data, self.limits, self.decoder, self.canvases)
        return Batch.of(report, tensor, found)

    def _decode(self, pictures):
        begin = time.perf_counter()
        try:
            self.decoder.decode(pictures)
        except Exception as error:  # a GPU that fails, say
            for picture in pictures:
                picture.error = jpeg.JpegError("internal", f"decoding failed: {error!r}")
        good = [picture.header for picture in pictures if picture.error is None]
        self.counters.add("nudenet_decoded_total", len(good))
        self.counters.add("nudenet_decode_seconds_total", time.perf_counter() - begin)
        self.counters.add("nudenet_megapixels_total", sum(header.width * header.height for header in good) / 1e6)

    def _respond(self, batch, decoded_at):
        batch.collect_errors()
        for error in batch.errors.values():
            self.counters.add("nudenet_rejected_total", 1, error.reason)
            if error.reason == failures.INTERNAL:  # not the picture's fault, as far as we know
                pb_utils.Logger.log_error(f"nudenet_preprocess: {error}")
        if batch.errors and not batch.report:
            first, error = min(batch.errors.items())
            raise failures.RequestError(f"image {first} of {len(batch.tensor)}: {error}", error.reason)
        geometry, reasons = batch.outputs()
        on_gpu = self.decoder.gpu_tensor(batch.tensor)
        on_host = on_gpu is None
        tensors = [
            pb_utils.Tensor(self.output, batch.tensor) if on_host else pb_utils.Tensor.from_dlpack(self.output, on_gpu),
            pb_utils.Tensor("geometry", geometry),
            pb_utils.Tensor("error", reasons),
            pb_utils.Tensor("decoded_at", np.array([(decoded_at,)] * len(batch.tensor))),
        ]
        return pb_utils.InferenceResponse(tensors)
