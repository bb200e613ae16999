"""What a client sees of the `nudenet` ensemble on the live server."""

from __future__ import annotations

import concurrent.futures
import io
import json
import urllib.request

import cv2
import numpy as np
import pytest
import tritonclient.grpc as grpc
import tritonclient.http as http
from PIL import Image
from tritonclient.utils import InferenceServerException

FACE_FEMALE = 1


@pytest.fixture(scope="module", params=["grpc", "http"])
def ask(request, server):
    """ask(pictures, parameters, outputs) -> dict of arrays, over either protocol."""
    module = {"grpc": grpc, "http": http}[request.param]
    url = server.grpc_url if request.param == "grpc" else server.http_url
    with module.InferenceServerClient(url) as client:

        def call(pictures, parameters=None, outputs=("detections", "num_detections")):
            tensor = module.InferInput("image", [len(pictures), 1], "BYTES")
            tensor.set_data_from_numpy(np.array([[picture] for picture in pictures], np.object_))
            wanted = [module.InferRequestedOutput(name) for name in outputs]
            result = client.infer("nudenet", [tensor], outputs=wanted, parameters=parameters)
            return {name: result.as_numpy(name) for name in outputs}

        yield call


def encoded(picture: Image.Image) -> bytes:
    target = io.BytesIO()
    picture.save(target, "JPEG", quality=90)
    return target.getvalue()


def resized(data: bytes, width: int, height: int) -> bytes:
    return encoded(Image.open(io.BytesIO(data)).resize((width, height), Image.Resampling.LANCZOS))


def black(width: int = 640, height: int = 480) -> bytes:
    return cv2.imencode(".jpg", np.zeros((height, width, 3), np.uint8))[1].tobytes()


def iou(a, b) -> float:
    left, top = np.maximum(a[:2], b[:2])
    right, bottom = np.minimum(a[2:4], b[2:4])
    both = max(0, right - left) * max(0, bottom - top)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def test_finds_the_face(ask, astronaut):
    answer = ask([astronaut], outputs=("detections", "num_detections", "labels"))
    assert answer["num_detections"].tolist() == [[1]]
    assert answer["labels"].tolist() == [[b"FACE_FEMALE"]]
    x1, y1, x2, y2, class_id, confidence = answer["detections"][0, 0]
    assert class_id == FACE_FEMALE
    assert confidence > 0.8
    assert 0 <= x1 < x2 <= 1280
    assert 0 <= y1 < y2 <= 720


def test_batch_of_eight_equals_eight_singles(ask, astronaut):
    pictures = [resized(astronaut, 1280 - 60 * i, 720 - 60 * i) for i in range(8)]  # 16:9 and wider: one canvas
    batch = ask(pictures)
    for i, picture in enumerate(pictures):
        single = ask([picture])
        count = single["num_detections"][0, 0]
        assert batch["num_detections"][i, 0] == count > 0
        # Convolutions of another batch size may add in another order: a hundredth of a pixel.
        np.testing.assert_allclose(batch["detections"][i, :count], single["detections"][0], atol=0.05)
        assert not batch["detections"][i, count:].any()


def test_pictures_of_any_shape_in_one_request_are_answered_as_alone(ask, astronaut, data_folder):
    """They travel on the smallest canvas that holds them all, and the engine takes them apart again."""
    frame = Image.open(io.BytesIO(astronaut))
    pictures = [
        encoded(frame.crop((340, 0, 745, 720))),  # 9:16
        astronaut,
        encoded(frame.crop((280, 0, 1000, 720))),
        encoded(frame.convert("L")),
        resized(astronaut, 3840, 2160),
        encoded(Image.new("RGB", (1, 5000), "white")),
        encoded(frame.crop((160, 0, 1120, 720))),  # 4:3
        (data_folder / "cameraman.jpg").read_bytes(),
    ]
    together = ask(pictures)
    assert together["num_detections"][5, 0] == 0
    for i, picture in enumerate(pictures):
        alone = ask([picture])
        count = alone["num_detections"][0, 0]
        assert together["num_detections"][i, 0] == count
        np.testing.assert_allclose(together["detections"][i, :count], alone["detections"][0], atol=0.05)


def test_a_refused_picture_among_several_shapes_does_not_change_them(ask, astronaut):
    frame = Image.open(io.BytesIO(astronaut))
    portrait = encoded(frame.crop((340, 0, 745, 720)))
    answer = ask([b"broken", portrait, astronaut], parameters={"on_error": "report"})
    assert answer["num_detections"][0, 0] == -1
    for i, picture in ((1, portrait), (2, astronaut)):
        alone = ask([picture])["detections"][0]
        np.testing.assert_allclose(answer["detections"][i, : len(alone)], alone, atol=0.05)


def test_a_portrait_picture_is_seen_as_large_as_a_landscape_one(ask, astronaut):
    frame = Image.open(io.BytesIO(astronaut))
    small = Image.new("RGB", (720, 1280), "grey")
    small.paste(frame.resize((320, 180)), (200, 900))  # a face of 16 pixels at NudeNet's scale, 9 in 180 rows
    upright, turned = (ask([encoded(picture)]) for picture in (small, frame))
    assert upright["num_detections"].tolist() == turned["num_detections"].tolist() == [[1]]
    assert upright["detections"][0, 0, 4] == FACE_FEMALE
    assert iou(upright["detections"][0, 0, :4] - [200, 900, 200, 900], turned["detections"][0, 0, :4] / 4) > 0.7


def test_mixed_sizes_in_one_request_keep_their_own_pixels(ask, astronaut):
    sizes = [(1280, 720), (1920, 1080), (640, 360), (3840, 2160), (854, 480)]
    answer = ask([resized(astronaut, *size) for size in sizes])
    reference = answer["detections"][0, 0, :4] / 1280
    for i, (width, _) in enumerate(sizes):
        assert answer["detections"][i, 0, 4] == FACE_FEMALE
        assert iou(answer["detections"][i, 0, :4] / width, reference) > 0.9


def test_nothing_found_is_an_empty_answer(ask):
    answer = ask([black()], outputs=("detections", "num_detections", "labels"))
    assert answer["num_detections"].tolist() == [[0]]
    assert answer["detections"].shape == (1, 0, 6)
    assert answer["labels"].shape == (1, 0)


def test_rows_beyond_num_detections_are_zero_and_unlabelled(ask, astronaut):
    answer = ask([black(), astronaut], outputs=("detections", "num_detections", "labels"))
    assert answer["num_detections"].tolist() == [[0], [1]]
    assert not answer["detections"][0].any()
    assert answer["labels"].tolist() == [[b""], [b"FACE_FEMALE"]]


def test_confidence_threshold_decides_what_counts(ask, astronaut):
    counts = [
        ask([astronaut], {"confidence_threshold": threshold})["num_detections"][0, 0] for threshold in (0.02, 0.5, 0.99)
    ]
    assert counts[0] > counts[1] == 1
    assert counts[2] == 0


def test_iou_threshold_one_keeps_overlapping_boxes(ask, astronaut):
    loose = ask([astronaut], {"iou_threshold": 1.0})["num_detections"][0, 0]
    assert loose > ask([astronaut])["num_detections"][0, 0]


def test_max_detections_keeps_the_best(ask, astronaut):
    everything = ask([astronaut], {"confidence_threshold": 0.02})["detections"][0]
    best = ask([astronaut], {"confidence_threshold": 0.02, "max_detections": 1})["detections"][0]
    assert len(everything) > 1
    assert (np.diff(everything[:, 5]) <= 0).all()
    np.testing.assert_array_equal(best, everything[:1])


def test_classes_filter_by_name(ask, astronaut):
    assert ask([astronaut], {"classes": "FACE_FEMALE, FACE_MALE"})["num_detections"].tolist() == [[1]]
    assert ask([astronaut], {"classes": "FACE_MALE"})["num_detections"].tolist() == [[0]]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"confidence_threshold": 3}, "confidence_threshold must be in [0,1], got 3"),
        ({"iou_threshold": -0.5}, "iou_threshold must be in [0,1], got -0.5"),
        ({"confidence_threshold": "high"}, "confidence_threshold must be a number in [0,1], got 'high'"),
        ({"max_detections": 0}, "max_detections must be in [1,1000], got 0"),
        ({"classes": "FACE"}, "classes must be comma-separated label names, got 'FACE'"),
        ({"on_error": "ignore"}, "on_error must be one of fail, report, got 'ignore'"),
        ({"treshold": 1}, "unknown parameter 'treshold'"),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(ask, astronaut, parameters, message):
    with pytest.raises(InferenceServerException, match="nudenet") as refused:
        ask([astronaut], parameters)
    assert message in refused.value.message()


def test_nine_in_a_batch_are_refused(ask, astronaut):
    with pytest.raises(InferenceServerException) as refused:
        ask([astronaut] * 9)
    assert "must be <= 8" in refused.value.message()


def get(server, path: str, method: str = "GET") -> tuple[int, bytes]:
    request = urllib.request.Request(f"http://{server.http_url}{path}", method=method)
    with urllib.request.urlopen(request, timeout=10) as response:
        return response.status, response.read()


def test_health_and_metadata(server):
    assert get(server, "/v2/health/live")[0] == get(server, "/v2/health/ready")[0] == 200
    for model in ("nudenet", "nudenet_preprocess", "nudenet_trt", "nudenet_postprocess"):
        assert get(server, f"/v2/models/{model}/ready")[0] == 200
    metadata = json.loads(get(server, "/v2/models/nudenet_trt")[1])
    assert metadata["inputs"] == [
        {"name": "input", "datatype": "FP32", "shape": [-1, 3, -1, -1]},
        {"name": "pixels", "datatype": "UINT8", "shape": [-1, 3, -1, -1]},
        {"name": "geometry", "datatype": "FP32", "shape": [-1, 4]},
    ]
    assert metadata["outputs"] == [{"name": "output", "datatype": "FP32", "shape": [-1, -1, 6]}]
    metadata = json.loads(get(server, "/v2/models/nudenet")[1])
    assert metadata["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1, 1]}]


def test_repository_index_lists_four_ready_models(server):
    index = json.loads(get(server, "/v2/repository/index", "POST")[1])
    assert {entry["name"]: entry["state"] for entry in index} == dict.fromkeys(
        ("nudenet", "nudenet_preprocess", "nudenet_trt", "nudenet_postprocess"), "READY"
    )


def test_statistics_and_metrics_count_requests(server, ask, astronaut):
    def counts():
        statistics = json.loads(get(server, "/v2/models/nudenet/stats")[1])["model_stats"][0]
        with urllib.request.urlopen(server.metrics_url, timeout=10) as response:
            lines = response.read().decode().splitlines()
        metric = next(line for line in lines if line.startswith('nv_inference_request_success{model="nudenet",'))
        return statistics["inference_stats"]["success"]["count"], float(metric.split()[-1])

    before = counts()
    for _ in range(3):
        ask([astronaut])
    after = counts()
    assert after[0] - before[0] == 3
    assert after[1] - before[1] == 3


def detect_directly(server, tensors: dict[str, np.ndarray]) -> np.ndarray:
    """Candidates [n,candidates,6] of `nudenet_trt` itself."""
    inputs = []
    for name, array in tensors.items():
        inputs.append(grpc.InferInput(name, list(array.shape), "UINT8" if array.dtype == np.uint8 else "FP32"))
        inputs[-1].set_data_from_numpy(array)
    with grpc.InferenceServerClient(server.grpc_url) as client:
        return client.infer("nudenet_trt", inputs).as_numpy("output")


@pytest.mark.parametrize("size", [(180, 320), (320, 180)])
def test_the_detector_answers_pixels_and_input_alike(server, size):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, *size), np.uint8)
    of_pixels = detect_directly(server, {"pixels": pixels})
    of_input = detect_directly(server, {"input": pixels * np.float32(1 / 255)})
    assert of_pixels.shape == (3, 1260, 6)
    np.testing.assert_allclose(of_pixels, of_input, rtol=1e-5, atol=1e-5)


def test_the_detector_wants_one_input_of_a_size_it_serves(server):
    pixels = np.zeros((1, 3, 180, 320), np.uint8)
    for tensors, message in (
        ({"pixels": pixels, "input": pixels.astype(np.float32)}, "exactly one of its inputs.* has both"),
        ({}, "0 inputs"),  # Triton answers by itself
        ({"geometry": np.zeros((1, 4), np.float32)}, "exactly one of its inputs.* has none"),
        ({"pixels": pixels[:, :, :64]}, r"shape \[1, 3, 64, 320\] is not served by nudenet_trt; send one of"),
    ):
        with pytest.raises(InferenceServerException, match=message):
            detect_directly(server, tensors)
    assert detect_directly(server, {"pixels": pixels}).shape == (1, 1260, 6)


def test_pixels_and_input_of_several_canvases_at_once(server):
    """Requests of several canvases share an execution; each gets its own answer."""
    random = np.random.default_rng(1)
    requests = []
    for i in range(24):
        pixels = random.integers(0, 256, (1 + i % 3, 3, *((180, 320), (320, 180), (320, 320))[i % 3]), np.uint8)
        requests.append({"input": pixels * np.float32(1 / 255)} if i % 4 == 0 else {"pixels": pixels})
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda tensors: detect_directly(server, tensors), requests))
    for tensors, answer in list(zip(requests, answers, strict=True))[::5]:
        np.testing.assert_allclose(answer, detect_directly(server, tensors), atol=0.05)
