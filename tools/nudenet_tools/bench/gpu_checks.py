"""What `bench.py gpu` checks before it measures: the GPU's decoder and the answers under load, against the CPU's."""

from __future__ import annotations

import queue
import random

import cv2
import numpy as np
import tritonclient.grpc

from nudenet_client.transport import grpc_options
from nudenet_steps.engines.onnxruntime_cpu import OnnxRuntimeEngine
from nudenet_steps.pipeline import ENGINE_FILES, Pipeline
from nudenet_steps.postprocess import nms
from nudenet_tools.server.process import Server

BATCH = 8
THRESHOLD, MARGIN = nms.Settings().confidence_threshold, 0.03  # near the threshold, rounding decides
LOW = THRESHOLD - MARGIN * 2
MAX_MEAN_DIFFERENCE = 2.5  # grey levels of 255 over a picture; 0.4 was measured, 1.7 where the CPU resized once more
MAX_DAMAGED_DIFFERENCE = 16.0  # of pictures with damage that nobody notices: clipped before or after they are reduced
MAX_PIXELS = 8.0  # of 1280: FP16 and another decoder move a box by a pixel


class AnswerError(RuntimeError):
    """The server's answers are not the reference's."""


def check_decoder(files: list[bytes]) -> dict:
    """Largest differences of the GPU's decoder from the CPU's, in grey levels of 255: of a mean, of a pixel.

    Ways: through host memory, and left on the GPU; files that the CPU must decode, damaged ones and portrait pictures
    in between.
    """
    from cuda.bindings import runtime

    from nudenet_steps.cuda import dlpack
    from nudenet_steps.preprocess import cpu_decoder, jpeg
    from nudenet_steps.preprocess.gpu_decoder import GpuDecoder

    limits, found = jpeg.Limits(), {}
    colours = cv2.imdecode(np.frombuffer(files[0], np.uint8), cv2.IMREAD_COLOR)
    progressive = cv2.imencode(".jpg", colours, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    portrait = cv2.imencode(".jpg", colours[:, : colours.shape[0] * 9 // 16])[1].tobytes()
    cut = files[1][: len(files[1]) // 2]
    calls = [
        [files[:4], [files[4], progressive]],
        [[progressive, files[2]], [cut, files[3]]],
        [[files[5]]],
        [[portrait, portrait], [files[0]], [files[1], portrait]],
        [files[:6]] * 2,
    ]
    reference = cpu_decoder.CpuDecoder(False, 2 * BATCH)
    for stays in (False, True):
        chosen = GpuDecoder(False, BATCH, stay_on_gpu=stays)
        mean = largest = 0.0
        for requests in calls:
            both: list[list[np.ndarray]] = []
            for each in (chosen, reference):
                laid_out = [cpu_decoder.lay_out(batch, limits, each) for batch in requests]
                pictures = [picture for _, found in laid_out for picture in found]
                each.decode([picture for picture in pictures if isinstance(picture, cpu_decoder.Picture)])
                both.append([tensor for tensor, _ in laid_out])
            for tensor, expected in zip(*both, strict=True):
                capsule = chosen.gpu_tensor(tensor)
                if capsule is not None:
                    to_host = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
                    runtime.cudaMemcpy(tensor.ctypes.data, dlpack.GpuTensor(capsule).address, tensor.nbytes, to_host)
                differences = np.abs(tensor.astype(np.int16) - expected)
                mean = max(mean, float(differences.mean(axis=(1, 2, 3)).max()))
                largest = max(largest, float(differences.max()))
        if mean > MAX_MEAN_DIFFERENCE:
            raise AnswerError(f"the GPU's decoder differs from the CPU's by {mean:.2f} of 255 on average")
        found["left on the GPU" if stays else "through host memory"] = {"mean": mean, "largest": largest}
    return found


def check_damage(files: list[bytes], count: int = 4000, seed: int = 1) -> dict:
    """Whether the GPU's decoder refuses every file that the CPU's refuses, and no other, on `count` damaged files.

    Returns:
        how many were accepted and refused, how many pictures of the accepted ones the GPU decoded, and the largest mean
        difference of one from the CPU's, in grey levels.

    Raises:
        AnswerError: they do not agree.
    """
    from nudenet_steps.preprocess import cpu_decoder, jpeg
    from nudenet_steps.preprocess.gpu_decoder import GpuDecoder

    rng, limits = random.Random(seed), jpeg.Limits()
    small = cv2.resize(cv2.imdecode(np.frombuffer(files[0], np.uint8), cv2.IMREAD_COLOR), (640, 360))
    options: tuple[list[int], ...] = (
        [],
        [cv2.IMWRITE_JPEG_RST_INTERVAL, 7],
        [cv2.IMWRITE_JPEG_OPTIMIZE, 1],
        [cv2.IMWRITE_JPEG_QUALITY, 30],
    )
    whole = [*files, *(cv2.imencode(".jpg", small, option)[1].tobytes() for option in options)]
    gpu, cpu = GpuDecoder(True, BATCH), cpu_decoder.CpuDecoder(True)
    found: dict[str, float] = {"accepted": 0, "refused": 0, "accepted, decoded by the GPU": 0, "largest mean": 0}

    def decode(decoder: cpu_decoder.Decoder, data: list[bytes]) -> tuple[list[bool], np.ndarray]:
        tensor, pictures = cpu_decoder.lay_out(data, limits, decoder)
        decoder.decode([one for one in pictures if isinstance(one, cpu_decoder.Picture)])
        return [isinstance(one, cpu_decoder.Picture) and one.error is None for one in pictures], tensor

    for one in whole:
        decode(gpu, [one])
    for _ in range(count // BATCH):
        damaged = [_damaged(rng.choice(whole), rng) for _ in range(BATCH)]
        (accepted, pixels), (expected, reference) = decode(gpu, damaged), decode(cpu, damaged)
        if accepted != expected:
            raise AnswerError(f"accepted by the GPU's decoder {accepted}, by the CPU's {expected}")
        means = np.abs(pixels.astype(np.int16) - reference)[expected].mean(axis=(1, 2, 3))
        found["largest mean"] = max(found["largest mean"], float(means.max(initial=0)))
        if found["largest mean"] > MAX_DAMAGED_DIFFERENCE:
            raise AnswerError(f"an accepted file differs by {found['largest mean']:.1f} of 255 on average")
        found["accepted"] += sum(expected)
        found["refused"] += BATCH - sum(expected)
        found["accepted, decoded by the GPU"] += gpu.decoded
    return found


def _damaged(data: bytes, rng: random.Random) -> bytes:
    """`data` with a change somewhere in its last nine tenths; it keeps its end marker."""
    end = len(data) - 2
    at = rng.randrange(end // 10, end)
    length = min(rng.choice((1, 1, 1, 8, 200, 5000)), end - at)
    body = data[:end]
    changes = (
        lambda: body[:at] + bytes([body[at] ^ 1 << rng.randrange(8)]) + body[at + 1 :],
        lambda: body[:at] + rng.randbytes(length) + body[at + length :],
        lambda: body[:at] + bytes(length) + body[at + length :],
        lambda: body[:at] + body[at + length :],
        lambda: body[:at] + body[at - length : at] + body[at:],
        lambda: body[:at],
        lambda: body[: end - rng.randrange(12)] + rng.randbytes(rng.randrange(4)),
    )
    return rng.choice(changes)() + data[end:]


def references(files: list[bytes]) -> list[np.ndarray]:
    """Detections [K,6] of each file by the CPU's decoder and the FP32 graph, and a little below the usual threshold."""
    pipeline = Pipeline(OnnxRuntimeEngine(ENGINE_FILES, 1), 1, nms.Settings(confidence_threshold=LOW))
    return [np.array(pipeline.run([data])[0]) for data in files]


def differences(found: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """Largest difference of matching detections: (pixels, confidence).

    Raises:
        AnswerError: a detection that is far above the threshold on one side is missing on the other.
    """
    pixels = confidence = 0.0
    for one, other in ((found, expected), (expected, found)):
        for row in one[one[:, 5] >= THRESHOLD + MARGIN]:
            same = other[other[:, 4] == row[4]]
            distances = np.abs(same[:, :4] - row[:4]).max(axis=1, initial=0)
            if not len(same) or distances.min() > MAX_PIXELS:
                raise AnswerError(f"{row} is in one answer only:\n{found}\n{expected}")
            nearest = same[distances.argmin()]
            pixels = max(pixels, float(distances.min()))
            confidence = max(confidence, abs(float(nearest[5] - row[5])))
    return pixels, confidence


def check_answers(server: Server, files: list[bytes], expected: list[np.ndarray], requests: int = 512) -> dict:
    """Compare answers under load, all files mixed, with the reference.

    Raises:
        AnswerError: an answer is missing, failed or differs.
    """
    done: queue.SimpleQueue = queue.SimpleQueue()
    worst = [0.0, 0.0]
    with tritonclient.grpc.InferenceServerClient(**grpc_options(server.grpc_url)) as client:
        for i in range(requests):
            tensor = tritonclient.grpc.InferInput("image", [1, 1], "BYTES")
            tensor.set_data_from_numpy(np.array([[files[i % len(files)]]], np.object_))
            client.async_infer(
                "nudenet",
                [tensor],
                lambda result, error, i=i: done.put((i, result, error)),
                parameters={"confidence_threshold": LOW},
            )
            if i >= BATCH * 8:  # so many in flight
                _compare(done.get(timeout=60), expected, worst)
        for _ in range(min(requests, BATCH * 8)):
            _compare(done.get(timeout=60), expected, worst)
    return {"requests": requests, "pixels": worst[0], "confidence": worst[1]}


def _compare(answer: tuple, expected: list[np.ndarray], worst: list[float]) -> None:
    i, result, error = answer
    if error is not None:
        raise AnswerError(f"request {i} failed: {error}")
    count = int(result.as_numpy("num_detections")[0, 0])
    for which, value in enumerate(differences(result.as_numpy("detections")[0, :count], expected[i % len(expected)])):
        worst[which] = max(worst[which], value)
