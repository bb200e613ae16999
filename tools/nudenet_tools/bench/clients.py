"""Load clients for what perf_analyzer cannot load: a plain HTTP service, and tensors made on the client's side."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import tritonclient.grpc as grpc

from nudenet_client.transport import grpc_options
from nudenet_steps.postprocess import nms
from nudenet_steps.preprocess import cpu_decoder, jpeg
from nudenet_tools.bench.process import Sample, run_for


def http_load(host: str, port: int, files: Sequence[bytes], connections: int) -> Callable[[float], Sample]:
    """Closed loop of `connections` threads, each with one keep-alive connection, posting a JPEG at a time."""

    def measure(seconds: float) -> Sample:
        samples: list[Sample] = []
        cpu, end = time.process_time(), time.perf_counter() + seconds

        def work(index: int) -> None:
            connection = http.client.HTTPConnection(host, port, timeout=30)
            sample, begin = Sample(0, 0.0, 0.0), time.perf_counter()
            now = begin
            while now < end:
                connection.request(
                    "POST", "/detect", files[(index + sample.pictures) % len(files)], {"Content-Type": "image/jpeg"}
                )
                response = connection.getresponse()
                response.read()
                sample.failures += response.status != 200
                sample.pictures += response.status == 200
                sample.latencies.append(time.perf_counter() - now)
                now = time.perf_counter()
            sample.seconds = now - begin
            connection.close()
            samples.append(sample)

        threads = [threading.Thread(target=work, args=(index,)) for index in range(connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return Sample(
            sum(sample.pictures for sample in samples),
            max((sample.seconds for sample in samples), default=seconds),
            time.process_time() - cpu,
            [latency for sample in samples for latency in sample.latencies],
            sum(sample.failures for sample in samples),
        )

    return measure


def tensor_load(grpc_url: str, files: Sequence[bytes], index: int) -> Callable[[float], Sample]:
    """One client that does the ensemble's Python steps itself: decode here, `nudenet_trt` there, NMS here."""
    cv2.setNumThreads(1)
    client = grpc.InferenceServerClient(**grpc_options(grpc_url))
    decoder = cpu_decoder.CpuDecoder(strict=True)
    limits, settings = jpeg.Limits(), nms.Settings()
    outputs = [grpc.InferRequestedOutput("output")]

    def call(done: int) -> int:
        data = files[(index + done) % len(files)]
        tensor, (picture,) = cpu_decoder.lay_out([data], limits, decoder)
        if isinstance(picture, jpeg.JpegError):
            raise picture
        decoder.decode([picture])
        request = grpc.InferInput("pixels", list(tensor.shape), "UINT8")
        request.set_data_from_numpy(tensor)
        (candidates,) = client.infer("nudenet_trt", [request], outputs=outputs).as_numpy("output")
        nms.detect(candidates, np.array(picture.box.geometry, np.float32), settings)
        return 1

    call(0)
    return lambda seconds: run_for(seconds, call)
