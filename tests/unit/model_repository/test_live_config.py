"""configs/live.pbtxt: the production detector without waiting, for pictures of any aspect."""

from __future__ import annotations

import itertools

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import TYPE_UINT8, ModelConfig

from container.repository import MODEL_REPOSITORY
from nudenet_steps.preprocess.canvas import CANVASES

DETECTOR = MODEL_REPOSITORY / "nudenet_trt"


@pytest.fixture
def live() -> ModelConfig:
    return text_format.Parse((DETECTOR / "configs" / "live.pbtxt").read_text(), ModelConfig())


def test_a_lone_frame_never_waits(live: ModelConfig) -> None:
    assert live.HasField("dynamic_batching")  # frames that queue up meanwhile still go together
    assert live.dynamic_batching.max_queue_delay_microseconds == 0
    assert not live.dynamic_batching.preferred_batch_size
    assert not live.dynamic_batching.preserve_ordering


def test_its_own_plan_takes_pixels_of_any_canvas(live: ModelConfig) -> None:
    assert live.default_model_filename == "model.live.plan"
    (pixels,) = live.input
    assert (pixels.name, pixels.data_type, tuple(pixels.dims)) == ("pixels", TYPE_UINT8, (3, -1, -1))


def test_every_canvas_and_batch_size_is_captured_and_every_canvas_warmed_up(live: ModelConfig) -> None:
    captured = [(spec.batch_size, tuple(spec.input["pixels"].dim)) for spec in live.optimization.cuda.graph_spec]
    assert sorted(captured) == sorted(itertools.product(range(1, 9), [(3, *canvas) for canvas in CANVASES]))
    warmed = {(warmup.batch_size, tuple(warmup.inputs["pixels"].dims)) for warmup in live.model_warmup}
    assert warmed == set(itertools.product((1, 4, 8), [(3, *canvas) for canvas in CANVASES]))


def test_everything_else_is_the_production_setting(live: ModelConfig) -> None:
    production = text_format.Parse((DETECTOR / "config.pbtxt").read_text(), ModelConfig())
    for config in (live, production):
        for name in ("dynamic_batching", "input", "output", "default_model_filename", "model_warmup"):
            config.ClearField(name)
        config.optimization.cuda.ClearField("graph_spec")
    assert live == production
