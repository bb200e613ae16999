"""The configuration contract: every config parses, steps fit together, production values are as specified."""

from __future__ import annotations

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from container import repository
from container.repository import MODEL_REPOSITORY, MODELS, Tuning, config_path, read_config, write_effective
from nudenet_steps.preprocess.canvas import CANVASES, SPECIFIED, served

CONFIGS = sorted(MODEL_REPOSITORY.glob("*/config.pbtxt")) + sorted(MODEL_REPOSITORY.glob("*/configs/*.pbtxt"))


def tensors(entries):
    return {entry.name: (entry.data_type, tuple(entry.dims)) for entry in entries}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(MODEL_REPOSITORY)))
def test_every_config_parses_and_is_complete(path):
    config = read_config(path)
    model = path.relative_to(MODEL_REPOSITORY).parts[0]
    assert config.name == model
    assert config.max_batch_size == 8
    assert config.input
    assert config.output
    assert bool(config.backend) != bool(config.platform)
    if model != "nudenet":
        assert config.HasField("dynamic_batching")
        assert config.instance_group[0].count >= 1


NAMES = ["", *repository.config_names()]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("model", ["nudenet", "nudenet_postprocess"])
def test_clients_see_the_same_tensors_in_every_setting(name, model):
    variant, default = read_config(config_path(model, name)), read_config(config_path(model))
    assert tensors(variant.input) == tensors(default.input)
    assert tensors(variant.output) == tensors(default.output)


@pytest.mark.parametrize("name", NAMES)
def test_ensemble_and_steps_agree(name):
    ensemble = read_config(config_path("nudenet", name))
    flowing = tensors(ensemble.input)
    for step in ensemble.ensemble_scheduling.step:
        model = read_config(config_path(step.model_name, name))
        inputs, outputs = tensors(model.input), tensors(model.output)
        assert set(step.input_map) <= set(inputs)
        assert all(entry.optional for entry in model.input if entry.name not in step.input_map)
        for tensor, ensemble_name in step.input_map.items():
            data_type, dims = flowing[ensemble_name]
            assert data_type == inputs[tensor][0]
            assert len(dims) == len(inputs[tensor][1])
            assert all(-1 in (a, b) or a == b for a, b in zip(dims, inputs[tensor][1], strict=True))
        for tensor, ensemble_name in step.output_map.items():
            flowing[ensemble_name] = outputs[tensor]
    for tensor, expected in tensors(ensemble.output).items():
        assert flowing[tensor] == expected


@pytest.mark.parametrize("name", NAMES)
def test_settings_of_the_ensemble_differ_in_what_the_detector_reads(name):
    variant, default = read_config(config_path("nudenet", name)), read_config(config_path("nudenet"))
    decode, detect, _ = variant.ensemble_scheduling.step
    for mapping in (decode.output_map, detect.input_map):
        if "pixels" in mapping:
            mapping["input"] = mapping.pop("pixels").replace("pixels", "input")
    assert ("geometry" in detect.input_map) == (name in ("cpu", "cuda", "rtx"))  # a plan cannot take pictures apart
    detect.input_map.pop("geometry", None)
    assert variant == default


@pytest.mark.parametrize("name", NAMES)
def test_preprocessing_writes_what_the_detector_reads(name):
    produced = tensors(read_config(config_path("nudenet_preprocess", name)).output)
    read = tensors(read_config(config_path("nudenet_trt", name)).input)
    (tensor,) = produced.keys() & read.keys() - {"geometry"}
    assert produced[tensor] == read[tensor]
    one_size = name == ""
    assert tensor == ("input" if one_size else "pixels")
    assert served(read[tensor][1]) == ((SPECIFIED,) if one_size else CANVASES)


@pytest.mark.parametrize("name", ["cpu", "cuda", "rtx"])
def test_the_stand_in_engines_take_one_of_two_inputs_of_any_canvas(name):
    config = read_config(config_path("nudenet_trt", name))
    assert {entry.name: (tuple(entry.dims), entry.allow_ragged_batch) for entry in config.input} == {
        "input": ((3, -1, -1), True),
        "pixels": ((3, -1, -1), True),
        "geometry": ((4,), False),
    }
    assert all(entry.optional for entry in config.input)


def test_the_specified_tensors_of_the_detector():
    config = read_config(config_path("nudenet_trt"))
    fp32 = config.input[0].data_type
    assert tensors(config.input) == {"input": (fp32, (3, 180, 320))}
    assert tensors(config.output) == {"output": (fp32, (1260, 6))}
    assert model_config_pb2.DataType.Name(fp32) == "TYPE_FP32"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(MODEL_REPOSITORY)))
def test_no_queue_delay_meets_a_queue_policy(path):
    repository.check_batching(read_config(path))


@pytest.mark.parametrize(
    "policy",
    [
        "priority_levels: 2",
        "default_queue_policy { max_queue_size: 9 }",
        "default_queue_policy { default_timeout_microseconds: 9 }",
        "default_queue_policy { allow_timeout_override: true }",
        "priority_queue_policy { key: 1 value { max_queue_size: 9 } }",
    ],
)
def test_a_queue_delay_beside_a_queue_policy_is_refused(policy):
    config = text_format.Parse(
        f'name: "m" dynamic_batching {{ max_queue_delay_microseconds: 5 {policy} }}', model_config_pb2.ModelConfig()
    )
    with pytest.raises(repository.ConfigError, match="m: max_queue_delay_microseconds is 5 beside a queue policy"):
        repository.check_batching(config)
    config.dynamic_batching.max_queue_delay_microseconds = 0
    repository.check_batching(config)


@pytest.mark.parametrize("name", ["", "cuda"])
def test_postprocessing_accepts_as_many_candidates_as_the_largest_canvas_has(name):
    cells = [(-(-canvas.height // 32), -(-canvas.width // 32)) for canvas in CANVASES]  # of the head of stride 32
    most = max(21 * rows * columns for rows, columns in cells)  # that of stride 16 has 4 times as many, of 8 16 times
    parameters = read_config(config_path("nudenet_postprocess", name)).parameters
    assert int(parameters["max_candidates"].string_value) == most


def test_production_values_of_the_detector():
    config = read_config(config_path("nudenet_trt"))
    assert config.platform == "tensorrt_plan"
    assert config.max_batch_size == 8
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 8]
    assert config.dynamic_batching.max_queue_delay_microseconds == 30_000
    assert not config.dynamic_batching.preserve_ordering
    (group,) = config.instance_group
    assert (group.count, list(group.gpus)) == (3, [0])
    assert group.kind == group.KIND_GPU
    assert list(group.profile) == ["0"]
    assert config.optimization.input_pinned_memory.enable
    assert config.optimization.output_pinned_memory.enable
    assert config.optimization.cuda.graphs
    assert [spec.batch_size for spec in config.optimization.cuda.graph_spec] == list(range(1, 9))
    assert [warmup.batch_size for warmup in config.model_warmup] == [1, 4, 8]


def test_labels_are_the_networks_own(onnx_path):
    import ast

    import onnx

    properties = {entry.key: entry.value for entry in onnx.load(onnx_path).metadata_props}
    names = ast.literal_eval(properties["names"])
    assert repository.labels() == [names[i] for i in range(len(names))]


def test_effective_repository_changes_only_what_is_tuned(tmp_path):
    tuning = Tuning(
        instances={"nudenet_preprocess": 5},
        parameters={"nudenet_trt": {"threads": "3"}},
    )
    write_effective(tmp_path / "models", "cpu", tuning)
    for model in MODELS:
        committed = read_config(config_path(model, "cpu"))
        if model == "nudenet_preprocess":
            committed.instance_group[0].count = 5
        if model == "nudenet_trt":
            committed.parameters["threads"].string_value = "3"
        assert read_config(tmp_path / "models" / model / "config.pbtxt") == committed
        assert (tmp_path / "models" / model / "1").resolve() == MODEL_REPOSITORY / model / "1"


def test_a_queue_delay_can_be_set_where_there_is_no_policy(tmp_path):
    write_effective(tmp_path / "models", "", Tuning(queue_delay_us={"nudenet_trt": 7}))
    committed = read_config(config_path("nudenet_trt"))
    committed.dynamic_batching.max_queue_delay_microseconds = 7
    assert read_config(tmp_path / "models" / "nudenet_trt" / "config.pbtxt") == committed


def test_a_rehearsal_replaces_what_is_the_plans_and_the_gpus_and_nothing_else(tmp_path):
    write_effective(tmp_path / "models", "", Tuning(), rehearsal=True)
    for model in MODELS:
        committed, rehearsed = (
            read_config(path) for path in (config_path(model), tmp_path / "models" / model / "config.pbtxt")
        )
        if model == "nudenet_trt":
            assert (rehearsed.platform, rehearsed.backend) == ("", "python")
            assert not rehearsed.HasField("optimization")
            for config in (committed, rehearsed):
                config.ClearField("platform")
                config.ClearField("backend")
                config.ClearField("optimization")
                for group in config.instance_group:
                    for field in ("kind", "gpus", "profile"):
                        group.ClearField(field)
        assert rehearsed == committed


STEP_CONFIGS = [path for path in CONFIGS if path.relative_to(MODEL_REPOSITORY).parts[0] in repository.STEPS]


@pytest.mark.parametrize("path", STEP_CONFIGS, ids=lambda path: str(path.relative_to(MODEL_REPOSITORY)))
def test_every_queue_without_a_delay_is_bounded_and_live_goes_first(path):
    batching = read_config(path).dynamic_batching
    if batching.max_queue_delay_microseconds > 0:  # as specified; the bound on what is under way keeps its queue short
        assert path == config_path("nudenet_trt")
        return
    assert (batching.priority_levels, batching.default_priority_level) == (2, 1)
    for level in (1, 2):
        policy = batching.priority_queue_policy[level]
        assert policy.max_queue_size > 0
        assert policy.timeout_action == policy.REJECT
        assert policy.default_timeout_microseconds > 0
        assert policy.allow_timeout_override
    if path.is_relative_to(MODEL_REPOSITORY / "nudenet_preprocess"):  # as docs/robustness.md says
        waits = [batching.priority_queue_policy[level].default_timeout_microseconds / 1e6 for level in (1, 2)]
        assert waits == [1, 10]


@pytest.mark.parametrize(("count", "groups"), [(1, [1]), (2, [1, 1]), (6, [1, 5])])
def test_a_number_of_instances_is_spread_over_the_groups(tmp_path, count, groups):
    write_effective(tmp_path / "models", "cuda", Tuning(instances={"nudenet_trt": count}))
    config = read_config(tmp_path / "models" / "nudenet_trt" / "config.pbtxt")
    assert [group.count for group in config.instance_group] == groups
    assert repository.instances(config) == count


def test_the_server_is_told_what_the_configs_rely_on(tmp_path):
    for name in ("", "cpu", "cuda"):
        write_effective(tmp_path / f"models-{name}", name, Tuning())
    assert repository.server_arguments(tmp_path / "models-") == []
    assert repository.server_arguments(tmp_path / "models-cpu") == []
    limit, pool = repository.server_arguments(tmp_path / "models-cuda")
    assert limit == "--rate-limit=execution_count"
    assert pool.startswith("--cuda-memory-pool-byte-size=0:")


def test_unknown_names_are_refused_with_what_there_is(tmp_path):
    with pytest.raises(repository.ConfigError, match=r"no configuration 'gpu'; there are: .*cpu"):
        write_effective(tmp_path / "a", "gpu", Tuning())
    with pytest.raises(repository.ConfigError, match=r"nudenet_trt has no parameter 'thread'; it has: .*threads"):
        write_effective(tmp_path / "b", "cpu", Tuning(parameters={"nudenet_trt": {"thread": "1"}}))


def test_a_broken_config_is_named_with_its_line(tmp_path):
    path = tmp_path / "config.pbtxt"
    path.write_text('name: "x"\nmax_batch: 8\n')
    with pytest.raises(repository.ConfigError, match=r"config\.pbtxt:2:1 : .*max_batch"):
        read_config(path)
