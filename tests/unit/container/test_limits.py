"""The largest request, and the shared memory that it takes."""

from __future__ import annotations

from container import limits, repository


def configs(name: str = "") -> dict[str, repository.ModelConfig]:
    return {model: repository.read_config(repository.config_path(model, name)) for model in repository.MODELS}


def test_a_message_holds_one_picture_of_the_largest_size_and_a_batch_of_common_ones():
    for name in ("", *repository.config_names()):
        preprocess = configs(name)["nudenet_preprocess"]
        largest = int(preprocess.parameters["max_bytes"].string_value)
        assert largest + (64 << 10) <= limits.MESSAGE_BYTES
        assert preprocess.max_batch_size * (8_000_000 + 4) <= limits.MESSAGE_BYTES


def test_preferred_batch_sizes_bound_what_an_instance_gets_at_once():
    config = repository.ModelConfig(max_batch_size=8)
    assert limits.requests_per_execution(config) == 1
    config.dynamic_batching.max_queue_delay_microseconds = 0
    assert limits.requests_per_execution(config) == 8
    config.dynamic_batching.preferred_batch_size.extend([1, 2])
    assert limits.requests_per_execution(config) == 2


def test_shared_memory_counts_the_instances_of_python_models_only():
    served = configs()
    python = sum(repository.instances(one) for one in served.values() if one.backend == "python")
    assert limits.ordinary_shared_memory(served) == python * limits.ORDINARY_BYTES
    assert served["nudenet_trt"].backend == ""
    before = limits.shared_memory(served)
    served["nudenet_preprocess"].instance_group[0].count += 1
    one_more = limits.requests_per_execution(served["nudenet_preprocess"]) * limits.MESSAGE_BYTES
    assert limits.shared_memory(served) - before >= one_more
