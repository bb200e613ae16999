"""The model repository as data: its configurations, and effective copies of it for one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

# The same place in a checkout and in the images.
MODEL_REPOSITORY = Path(__file__).resolve().parents[2] / "model_repository"
# Tensors that stay on the GPU, up to 0.3 MB for each picture on its way: asking CUDA for each takes too long.
GPU_POOL_BYTES = 512 << 20
MODELS = ("nudenet", "nudenet_preprocess", "nudenet_trt", "nudenet_postprocess")
STEPS = MODELS[1:]


class ConfigError(ValueError):
    """A configuration that is missing, does not parse, or lacks what it is asked for."""


@dataclass(frozen=True)
class Tuning:
    """What is computed for one machine instead of standing in a committed file; the rest keeps the file's value."""

    instances: Mapping[str, int] = field(default_factory=dict)  # model name -> instances
    parameters: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # model name -> parameter -> value
    queue_delay_us: Mapping[str, int] = field(default_factory=dict)  # model name -> dynamic batching delay


def config_path(model: str, config_name: str = "", repository: Path = MODEL_REPOSITORY) -> Path:
    """The file Triton reads for `model` under ``--model-config-name=config_name``; "" is config.pbtxt."""
    named = repository / model / "configs" / f"{config_name}.pbtxt"
    return named if config_name and named.is_file() else repository / model / "config.pbtxt"


def config_names(repository: Path = MODEL_REPOSITORY) -> list[str]:
    """Names that ``configs/*.pbtxt`` offer, over all models."""
    return sorted({path.stem for path in repository.glob("*/configs/*.pbtxt")})


def check_name(config_name: str, repository: Path = MODEL_REPOSITORY) -> None:
    """Refuse the name of a configuration that no model has: Triton would take config.pbtxt without a word.

    Raises:
        ConfigError: names those that there are.
    """
    if config_name and config_name not in config_names(repository):
        raise ConfigError(f"no configuration {config_name!r}; there are: {', '.join(config_names(repository))}")


def read_config(path: Path) -> ModelConfig:
    """Parse one config.pbtxt with Triton's own message.

    Raises:
        ConfigError: the file is missing or does not parse; names file, line and column.
    """
    try:
        return text_format.Parse(path.read_text(), ModelConfig())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except text_format.ParseError as error:
        raise ConfigError(f"{path}:{error}") from error


def check_batching(config: ModelConfig) -> None:
    """Refuse a queue delay together with any queue policy.

    Triton before 26.08 switches prefetching off for a queue with a policy, and with a delay its batcher then loses
    count of its instances: throughput decays until the model is loaded again.

    Raises:
        ConfigError: both are there; names the model.
    """
    batching = config.dynamic_batching
    policies = [batching.default_queue_policy, *batching.priority_queue_policy.values()]
    has_policy = batching.priority_levels > 0 or any(policy.ByteSize() for policy in policies)
    if batching.max_queue_delay_microseconds > 0 and has_policy:
        raise ConfigError(
            f"{config.name}: max_queue_delay_microseconds is {batching.max_queue_delay_microseconds} beside a queue "
            "policy (priority_levels, max_queue_size or a timeout); Triton before 26.08 gets slower and slower with "
            "both: set the delay to 0, or remove the policy"
        )


def labels(repository: Path = MODEL_REPOSITORY) -> list[str]:
    """Class names; the index is the class id."""
    return (repository / "nudenet_postprocess" / "labels.txt").read_text().split()


def python_engine(config: ModelConfig) -> str:
    """Name of the detector's engine in the Python backend; empty where `config` has none, as that of a plan."""
    has_one = config.backend == "python" and "engine" in config.parameters
    return config.parameters["engine"].string_value if has_one else ""


def instances(config: ModelConfig) -> int:
    """Instances of a model, over all its groups."""
    return sum(max(1, group.count) for group in config.instance_group) or 1


def _set_instances(config: ModelConfig, count: int) -> None:
    """Give the last group what the others leave; the first has one at least."""
    for group in list(config.instance_group[1:])[::-1]:
        others = instances(config) - max(1, group.count)
        if count > others:
            group.count = count - others
            return
        config.instance_group.remove(group)
    config.instance_group[0].count = count


def effective_configs(repository: Path) -> dict[str, ModelConfig]:
    """What `write_effective` wrote, by model name."""
    return {path.parent.name: read_config(path) for path in sorted(repository.glob("*/config.pbtxt"))}


def server_arguments(repository: Path) -> list[str]:
    """Options that tritonserver needs for what the effective repository's configurations ask for."""
    configs = effective_configs(repository).values()
    found = []
    if any(group.rate_limiter.priority for config in configs for group in config.instance_group):
        found.append("--rate-limit=execution_count")  # else priorities of instances are not looked at
    key = "FORCE_CPU_ONLY_INPUT_TENSORS"
    if any(key in config.parameters and config.parameters[key].string_value == "no" for config in configs):
        found.append(f"--cuda-memory-pool-byte-size=0:{GPU_POOL_BYTES}")
    return found


def rehearse(config: ModelConfig) -> None:
    """Let the Python backend serve a plan's configuration: whatever is not the plan's or the GPU's own stays."""
    config.platform, config.backend = "", "python"
    config.ClearField("optimization")
    for group in config.instance_group:
        group.kind = group.KIND_CPU
        del group.gpus[:], group.profile[:]


def write_effective(
    target: Path,
    config_name: str,
    tuning: Tuning,
    repository: Path = MODEL_REPOSITORY,
    *,
    rehearsal: bool = False,
) -> None:
    """Lay out a repository at `target` whose models are links and whose configs are this run's.

    The committed repository stays untouched; Triton needs no ``--model-config-name``. With `rehearsal`, a plan's
    configuration is served by the Python backend, see `rehearse`.

    Raises:
        ConfigError: unknown `config_name`, a parameter that a model does not have, or see `check_batching`.
    """
    check_name(config_name, repository)
    for model in MODELS:
        config = read_config(config_path(model, config_name, repository))
        if model in tuning.instances:
            _set_instances(config, tuning.instances[model])
        if model in tuning.queue_delay_us:
            config.dynamic_batching.max_queue_delay_microseconds = tuning.queue_delay_us[model]
        for key, value in tuning.parameters.get(model, {}).items():
            if key not in config.parameters:
                raise ConfigError(f"{model} has no parameter {key!r}; it has: {', '.join(config.parameters)}")
            config.parameters[key].string_value = value
        if rehearsal and config.platform == "tensorrt_plan":
            rehearse(config)
        check_batching(config)
        _write(target, repository / model, config)


def _write(target: Path, source: Path, config: ModelConfig) -> None:
    """A model folder under `target`: `config`, and links to everything else in `source`."""
    folder = target / config.name
    folder.mkdir(parents=True)
    for entry in source.iterdir():
        if entry.name not in ("config.pbtxt", "configs"):
            (folder / entry.name).symlink_to(entry, target_is_directory=entry.is_dir())
    (folder / "config.pbtxt").write_text(text_format.MessageToString(config))
