"""Triton glue of the engines in Python, which configs/cpu.pbtxt, cuda.pbtxt, rtx.pbtxt and rehearsals name."""

import gc
import json
import sys
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

# Triton puts only this folder on the path; the code of all steps is the neighbour's.
STEPS = Path(__file__).resolve().parents[2] / "nudenet" / "1"
if not (STEPS / "nudenet_steps").is_dir():
    raise ImportError(
        f"{STEPS / 'nudenet_steps'} is missing: serve the whole model repository from a disk. Triton copies models out "
        "of s3://, gs:// and as:// one at a time: copy the repository to a disk first"
    )
sys.path.append(str(STEPS))

from nudenet_steps.engines import check_canvas, choose_input, engine_class, groups, join, split
from nudenet_steps.preprocess.canvas import served
from nudenet_steps.serving import failures, model_parameters, package
from nudenet_steps.serving.heartbeat import Heartbeat
from nudenet_steps.serving.metrics import BATCH_METRICS, BATCH_PICTURES, BATCHES, Counters
from nudenet_steps.serving.process_counts import ProcessCounts


class TritonPythonModel:
    """The requests of one execution run as one batch for each canvas among them."""

    def initialize(self, args):
        config = json.loads(args["model_config"])
        value = model_parameters.parse(config, model_parameters.TRT)
        folder = Path(args["model_repository"]) / args["model_version"]
        self.inputs = [one["name"] for one in config["input"]]
        self.canvases = served([int(dim) for dim in config["input"][0]["dims"]])
        engine = engine_class(value["engine"])  # its libraries are needed only where it runs
        self.engine = engine(folder, config["max_batch_size"], value["precision"], value["threads"], self.canvases)
        why = f"; auto: {self.engine.reason}" if self.engine.reason else ""
        pb_utils.Logger.log_info(f"nudenet_trt: {self.engine.name}, {self.engine.precision}{why}")
        self.pictures = ProcessCounts("detectors")  # that all instances are at work on
        self.heartbeat = Heartbeat(args["model_instance_name"])
        self.package = package.publish(pb_utils)
        self.counters = Counters(pb_utils, {**failures.METRICS, **BATCH_METRICS})
        self.failures = failures.Failures(pb_utils, self.counters, "nudenet_trt")
        gc.collect()
        gc.freeze()

    def finalize(self):
        self.heartbeat.close()
        self.pictures.close()

    def is_ready(self):
        return self.heartbeat.is_well()

    def execute(self, requests):
        with self.heartbeat:
            taken = [self._take(request) for request in requests]
            good = [parts for parts in taken if not isinstance(parts, pb_utils.InferenceResponse)]
            count = sum(part.shape[0] for parts in good for part in parts)
            self.pictures.add(count)
            try:
                answers = iter(self._answer(good, count))
            finally:
                self.pictures.add(-count)
            self.counters.flush()
            return [one if isinstance(one, pb_utils.InferenceResponse) else next(answers) for one in taken]

    def _take(self, request):
        """What the engine takes of one request, see `split`, or the response that refuses it."""
        try:
            given = {name: pb_utils.get_input_tensor_by_name(request, name) for name in self.inputs}
            tensor = choose_input(given)
            check_canvas(tensor.shape(), self.canvases)
            return split(self.engine.take(tensor), self._host_array(given.get("geometry")), self.canvases)
        except ValueError as error:
            return self.failures.response(error)

    def _host_array(self, tensor):
        if tensor is None:
            return None
        if not tensor.is_cpu():  # a client's, in CUDA shared memory
            raise ValueError("'geometry' must be in host memory")
        return tensor.as_numpy()

    def _answer(self, taken, count):
        """One response for each request, given as its parts."""
        parts = [part for own in taken for part in own]
        outputs: dict[int, Any] = {}  # of each part: its candidates, or why there are none
        for group in groups(parts):
            try:
                output = self.engine.infer([parts[k] for k in group], alone=self.pictures.total() == count)
            except Exception as error:
                outputs |= dict.fromkeys(group, error)
                continue
            canvas = "x".join(map(str, parts[group[0]].shape[2:]))
            self.counters.add(BATCHES, 1, canvas)
            self.counters.add(BATCH_PICTURES, len(output), canvas)
            start = 0
            for k in group:
                end = start + parts[k].shape[0]
                outputs[k] = output[start:end]
                start = end
        in_order = iter(range(len(parts)))
        return [self._respond([outputs[next(in_order)] for _ in own]) for own in taken]

    def _respond(self, outputs):
        """The response of one request, given what became of its parts."""
        error = next((one for one in outputs if isinstance(one, Exception)), None)
        if error is not None:
            return self.failures.response(error)
        return pb_utils.InferenceResponse([pb_utils.Tensor("output", join(outputs))])
