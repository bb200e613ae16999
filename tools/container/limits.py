"""How large a request may be and how much shared memory that takes, for proxy, images and manifests in one place.

Triton accepts gRPC messages of 2 GB, copies what they hold into /dev/shm for every step, and its regions never shrink.
So the proxy in front refuses what is larger than `MESSAGE_BYTES`, and /dev/shm holds what is not.
"""

from __future__ import annotations

from collections.abc import Mapping

from tritonclient.grpc.model_config_pb2 import ModelConfig

from container import repository

# One picture of the largest size (max_bytes, 20 MB), or eight of 8 MB. All of it may be request parameters.
MESSAGE_BYTES = 64 << 20
# Of a Python instance under ordinary traffic: it starts with 1 MB and grows to about two full batches in and out.
ORDINARY_BYTES = 32 << 20
_SPARE = 1.1  # regions grow in steps, and blocks of different sizes leave gaps


def requests_per_execution(config: ModelConfig) -> int:
    """Most requests that Triton hands to an instance at once; each of them may have the largest size."""
    if not config.HasField("dynamic_batching"):
        return 1
    return max(config.dynamic_batching.preferred_batch_size, default=max(1, config.max_batch_size))


def ordinary_shared_memory(configs: Mapping[str, ModelConfig]) -> int:
    """Bytes of /dev/shm without which the server cannot work.

    Args:
        configs: of all models, by name.
    """
    return sum(repository.instances(config) * ORDINARY_BYTES for config in _python(configs))


def shared_memory(configs: Mapping[str, ModelConfig]) -> int:
    """Bytes of /dev/shm that hold the largest permitted requests in every instance at the same time.

    Args:
        configs: of all models, by name.
    """
    largest = sum(
        repository.instances(config) * (requests_per_execution(config) * MESSAGE_BYTES + ORDINARY_BYTES)
        for config in _python(configs)
    )
    return int(_SPARE * largest)


def _python(configs: Mapping[str, ModelConfig]) -> list[ModelConfig]:
    return [config for config in configs.values() if config.backend == "python"]
