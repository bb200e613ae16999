"""The model repository as data, for the commands: container/repository.py, which the images have, too."""

from container.repository import (
    GPU_POOL_BYTES,
    MODEL_REPOSITORY,
    MODELS,
    STEPS,
    ConfigError,
    Tuning,
    check_batching,
    config_names,
    config_path,
    effective_configs,
    instances,
    labels,
    read_config,
    server_arguments,
    write_effective,
)

__all__ = [
    "GPU_POOL_BYTES",
    "MODELS",
    "MODEL_REPOSITORY",
    "STEPS",
    "ConfigError",
    "Tuning",
    "check_batching",
    "config_names",
    "config_path",
    "effective_configs",
    "instances",
    "labels",
    "read_config",
    "server_arguments",
    "write_effective",
]
