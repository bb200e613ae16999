"""Triton glue of the postprocessing step: `candidates` and `geometry` to detections."""

import collections
import gc
import json
import sys
from pathlib import Path

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

from nudenet_steps.postprocess import nms, policy, policy_file
from nudenet_steps.postprocess.parameters import parse_settings
from nudenet_steps.serving import failures, model_parameters, package, request_parameters
from nudenet_steps.serving.backpressure import Backpressure
from nudenet_steps.serving.heartbeat import Heartbeat
from nudenet_steps.serving.metrics import Counters

FAILED = -1  # num_detections of a picture that preprocessing refused
METRICS = {
    "nudenet_detections_total": ("Detections answered", ("class",)),
    "nudenet_verdicts_total": ("Pictures judged; error: refused, or not to be judged", ("verdict", "policy")),
    **failures.METRICS,
}


class TritonPythonModel:
    """One try per request, one response per request."""

    def initialize(self, args):
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"])
        self.max_candidates = model_parameters.parse(config, model_parameters.POSTPROCESS)["max_candidates"]
        filename = pb_utils.get_output_config_by_name(config, "labels")["label_filename"]
        self.labels = (folder / filename).read_text().split()
        self.defaults = nms.Settings()
        policies = policy_file.load(folder / policy_file.FILE, self.labels)
        network = policy_file.network_sha256(folder.parent / "nudenet_trt" / "1")
        self.judge = policy.Judge(policies, self.labels, network)
        self.package = package.publish(pb_utils)
        self.counters = Counters(pb_utils, METRICS)
        self.failures = failures.Failures(pb_utils, self.counters, "nudenet_postprocess")
        self.backpressure = Backpressure(pb_utils)
        self.heartbeat = Heartbeat(args["model_instance_name"])
        gc.collect()
        gc.freeze()

    def finalize(self):
        self.heartbeat.close()

    def is_ready(self):
        return self.heartbeat.is_well()

    def execute(self, requests):
        with self.heartbeat:
            responses = [self._respond(request) for request in requests]
            for request in requests:
                decoded_at = pb_utils.get_input_tensor_by_name(request, "decoded_at")
                if decoded_at is not None:  # else a client calls this step itself
                    times = decoded_at.as_numpy()
                    self.backpressure.leave(int(times[0, 0]), len(times))
            self.backpressure.publish()
            self.counters.flush()
        return responses

    def _respond(self, request):
        try:
            outputs = self._process(request)
        except Exception as error:
            return self.failures.response(error)
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in outputs.items()])

    def _process(self, request):
        given = request_parameters.read(request)
        settings = parse_settings(given, self.labels) if given else self.defaults
        policy_name = self.judge.choose(given.get("policy"))
        candidates = pb_utils.get_input_tensor_by_name(request, "candidates").as_numpy()
        geometry = pb_utils.get_input_tensor_by_name(request, "geometry").as_numpy()
        if candidates.shape[1] > self.max_candidates:  # of a client that calls this step itself
            raise failures.RequestError(
                f"candidates: {candidates.shape[1]} a picture, the detector has {self.max_candidates}", "candidates"
            )
        failed = [not width for width in geometry[:, 2].tolist()]  # the source's
        found = [
            picture[:0] if bad else nms.detect(picture, where, settings)
            for picture, where, bad in zip(candidates, geometry, failed, strict=True)
        ]
        counts = [FAILED if bad else len(rows) for rows, bad in zip(found, failed, strict=True)]
        most = max(0, *counts)
        detections = np.zeros((len(found), most, 6), np.float32)
        labels = [[self.labels[int(class_id)] for class_id in rows[:, 4].tolist()] for rows in found]
        for i, (rows, names) in enumerate(zip(found, labels, strict=True)):
            detections[i, : len(rows)] = rows
            for name in names:
                self.counters.add("nudenet_detections_total", 1, name)
        outputs = {"detections": detections, "num_detections": np.array(counts, np.int32)[:, None]}
        wanted = request.requested_output_names()
        if "labels" in wanted:
            filled = [[name.encode() for name in names] + [b""] * (most - len(names)) for names in labels]
            outputs["labels"] = np.array(filled, np.object_)
        if "verdict" in wanted or "reasons" in wanted:
            outputs |= policy.tensors(self.judge, policy_name, candidates, geometry)
            if policy_name is not None:
                for verdict, count in collections.Counter(outputs["verdict"][:, 0]).items():
                    self.counters.add("nudenet_verdicts_total", count, verdict.decode(), policy_name)
        return outputs
