"""`failures.py` and `request_parameters.py`: what a step answers when a request fails."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from nudenet_steps.serving import failures, request_parameters


class TritonError(SimpleNamespace):
    INVALID_ARG, INTERNAL = "invalid", "internal"

    def __init__(self, message, code):
        super().__init__(message=message, code=code)


class Counters:
    def __init__(self):
        self.counted = []

    def add(self, *what):
        self.counted.append(what)

    def flush(self):
        pass


@pytest.fixture
def triton():
    logged = []
    return SimpleNamespace(
        TritonError=TritonError,
        InferenceResponse=lambda error: error,
        Logger=SimpleNamespace(log_error=logged.append),
        logged=logged,
    )


@pytest.mark.parametrize(
    ("error", "message", "code", "reason"),
    [
        (failures.RequestError("5 is too many", "shape"), "5 is too many", "invalid", "shape"),
        (ValueError("no"), "no", "invalid", "invalid"),
        (OSError("gone"), "step failed: OSError('gone')", "internal", "internal"),
    ],
)
def test_each_failure_is_answered_and_counted_by_its_reason(triton, error, message, code, reason):
    counters = Counters()
    answer = failures.Failures(triton, counters, "step").response(error)
    assert (answer.message, answer.code) == (message, code)
    assert counters.counted == [(failures.TOTAL, 0, "step", "internal"), (failures.TOTAL, 1, "step", reason)]
    assert len(triton.logged) == (code == "internal")  # what is not the request's fault


def test_request_parameters_are_bounded_before_they_are_read():
    def read(text):
        return request_parameters.read(SimpleNamespace(parameters=lambda: text))

    assert read("") == {}
    assert read(json.dumps({"classes": "x" * 4000})) == {"classes": "x" * 4000}
    with pytest.raises(failures.RequestError, match="request parameters take 5000 bytes, the limit is 4096"):
        read("?" * 5000)
