"""Parameters of config.pbtxt: a wrong one stops the load and says what is allowed."""

from __future__ import annotations

import pytest

from container import repository
from nudenet_steps.serving import model_parameters
from nudenet_steps.serving.model_parameters import ModelParameterError, parse

KNOWN = {
    "nudenet_preprocess": model_parameters.PREPROCESS,
    "nudenet_trt": model_parameters.TRT,
    "nudenet_postprocess": model_parameters.POSTPROCESS,
}
PREPROCESS = {
    "max_bytes": "20000000",
    "max_pixels": "50000000",
    "max_scans": "100",
    "max_scan_work": "500000000",
    "strict": "true",
    "max_in_flight": "64",
}


def config(**given: str) -> dict:
    """As Triton hands it over."""
    return {"name": "nudenet_preprocess", "parameters": {name: {"string_value": text} for name, text in given.items()}}


@pytest.mark.parametrize("model", KNOWN)
@pytest.mark.parametrize("name", ["", *repository.config_names()])
def test_every_committed_configuration_is_read(model, name):
    read = repository.read_config(repository.config_path(model, name))
    if read.backend == "python":
        given = {key: value.string_value for key, value in read.parameters.items()}
        assert set(KNOWN[model]) == set(parse({**config(**given), "name": model}, KNOWN[model]))


def test_values_have_their_types_and_defaults():
    value = parse(config(**PREPROCESS), model_parameters.PREPROCESS)
    assert value["strict"] is True
    assert value["max_bytes"] == 20_000_000
    assert value["decoder"] == "cpu"


def test_names_in_capitals_are_tritons_own():
    assert parse(config(**PREPROCESS, FORCE_CPU_ONLY_INPUT_TENSORS="no"), model_parameters.PREPROCESS)["strict"]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"strict": "True"}, "nudenet_preprocess: parameter 'strict' must be true or false, got 'True'"),
        ({"strict": "yes"}, "must be true or false, got 'yes'"),
        ({"strict": ""}, "must be true or false, got ''"),
        ({"decoder": "gpu"}, "parameter 'decoder' must be cpu or nvjpeg, got 'gpu'"),
        ({"max_bytes": "20e6"}, "parameter 'max_bytes' must be a whole number from 1 to"),
        ({"max_bytes": "0"}, "must be a whole number from 1 to"),
        ({"max_bytes": "-1"}, "must be a whole number from 1 to"),
        ({"max_scans": "٣"}, "must be a whole number from 1 to"),
        ({"maxbytes": "1"}, "nudenet_preprocess: unknown parameter 'maxbytes'; known: max_bytes"),
    ],
)
def test_a_wrong_one_names_what_came_and_what_is_allowed(given, complaint):
    with pytest.raises(ModelParameterError) as caught:
        parse(config(**{**PREPROCESS, **given}), model_parameters.PREPROCESS)
    assert complaint in str(caught.value)


def test_a_missing_one_is_named():
    with pytest.raises(ModelParameterError, match="'strict' is missing; it must be true or false"):
        parse(config(max_bytes="1", max_pixels="1", max_scans="1", max_scan_work="1"), model_parameters.PREPROCESS)
