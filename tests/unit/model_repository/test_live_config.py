"""configs/live.pbtxt: the production detector without waiting."""

from __future__ import annotations

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from nudenet_tools.server.repository import MODEL_REPOSITORY

DETECTOR = MODEL_REPOSITORY / "nudenet_trt"


@pytest.fixture
def live() -> ModelConfig:
    return text_format.Parse((DETECTOR / "configs" / "live.pbtxt").read_text(), ModelConfig())


def test_a_lone_frame_never_waits(live: ModelConfig) -> None:
    assert live.HasField("dynamic_batching")  # frames that queue up meanwhile still go together
    assert live.dynamic_batching.max_queue_delay_microseconds == 0
    assert not live.dynamic_batching.preferred_batch_size
    assert not live.dynamic_batching.preserve_ordering


def test_everything_else_is_the_production_setting(live: ModelConfig) -> None:
    production = text_format.Parse((DETECTOR / "config.pbtxt").read_text(), ModelConfig())
    live.ClearField("dynamic_batching")
    production.ClearField("dynamic_batching")
    assert live == production
