"""Triton glue of the stand-in engines that configs/cpu.pbtxt and configs/cuda.pbtxt name."""

import gc
import json
import sys
from pathlib import Path

import triton_python_backend_utils as pb_utils

# Triton puts only this folder on the path; the code of all steps is the neighbour's.
STEPS = Path(__file__).resolve().parents[2] / "nudenet" / "1"
if not (STEPS / "nudenet_steps").is_dir():
    raise ImportError(
        f"{STEPS / 'nudenet_steps'} is missing: serve the whole model repository from a disk. Triton copies models out "
        "of s3://, gs:// and as:// one at a time: copy the repository to a disk first"
    )
sys.path.append(str(STEPS))

from nudenet_steps.engines import engine_class
from nudenet_steps.serving import parameters
from nudenet_steps.serving.heartbeat import Heartbeat
from nudenet_steps.serving.process_counts import ProcessCounts


class TritonPythonModel:
    """All requests of one execution run as one batch."""

    def initialize(self, args):
        config = json.loads(args["model_config"])
        value = parameters.parse(config, parameters.TRT)
        folder = Path(args["model_repository"]) / args["model_version"]
        engine = engine_class(value["engine"])  # its libraries are needed only where it runs
        self.engine = engine(folder, config["max_batch_size"], value["precision"], value["threads"])
        pb_utils.Logger.log_info(f"nudenet_trt: {self.engine.name}, {self.engine.precision}")
        self.pictures = ProcessCounts("detectors")  # in each one's hands; back-pressure looks at them, too
        self.heartbeat = Heartbeat(args["model_instance_name"])
        gc.collect()
        gc.freeze()

    def finalize(self):
        self.heartbeat.close()
        self.pictures.close()

    def execute(self, requests):
        with self.heartbeat:
            parts = [self.engine.take(pb_utils.get_input_tensor_by_name(request, "input")) for request in requests]
            count = sum(len(part) for part in parts)
            self.pictures.add(count)
            try:
                return self._answer(parts, count)
            finally:
                self.pictures.add(-count)

    def _answer(self, parts, count):
        try:
            output = self.engine.infer(parts, alone=self.pictures.total() == count)
        except Exception as error:
            pb_utils.Logger.log_error(f"nudenet_trt: {error!r}")
            failure = pb_utils.TritonError(f"inference failed: {error!r}", pb_utils.TritonError.INTERNAL)
            return [pb_utils.InferenceResponse(error=failure) for _ in parts]
        responses, start = [], 0
        for part in parts:
            rows = output[start : start + len(part)]
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("output", rows)]))
            start += len(part)
        return responses
