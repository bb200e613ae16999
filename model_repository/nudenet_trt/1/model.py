"""Triton glue of the stand-in engines that configs/cpu.pbtxt and configs/cuda.pbtxt name."""

import gc
import importlib
import json
from pathlib import Path

import lane
import triton_python_backend_utils as pb_utils
from tally import Tally
from vitals import Vitals

ENGINES = {"openvino": ("engine", "OpenVinoEngine"), "cuda": ("cuda_engine", "CudaEngine")}


class TritonPythonModel:
    """All requests of one execution run as one batch."""

    def initialize(self, args):
        config = json.loads(args["model_config"])
        traffic = lane.join(config, pb_utils)
        value = {key: entry["string_value"] for key, entry in config["parameters"].items()}
        folder = Path(args["model_repository"]) / args["model_version"]
        module, name = ENGINES[value["engine"]]
        engine = getattr(importlib.import_module(module), name)  # an engine's libraries are needed only where it runs
        self.engine = engine(folder, config["max_batch_size"], value["precision"], int(value["threads"]))
        pb_utils.Logger.log_info(f"nudenet_trt: {self.engine.name}, {self.engine.precision}")
        self.pictures = Tally("detectors", traffic)  # in each one's hands; the gate looks at them, too
        self.vitals = Vitals(args["model_instance_name"], traffic)
        gc.collect()
        gc.freeze()

    def finalize(self):
        self.vitals.close()
        self.pictures.close()

    def execute(self, requests):
        with self.vitals:
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
