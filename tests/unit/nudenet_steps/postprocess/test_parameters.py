"""`parameters.py`: what a request may ask of postprocessing, and what it is told otherwise."""

from __future__ import annotations

import pytest

from nudenet_steps.postprocess.nms import Settings
from nudenet_steps.postprocess.parameters import ParameterError, parse_settings

LABELS = ["FACE_FEMALE", "FACE_MALE", "FEET_EXPOSED"]


def test_defaults_are_those_of_nudenet():
    assert parse_settings({}, LABELS) == Settings(0.25, 0.45, 100, None)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"confidence_threshold": "0.5"}, Settings(confidence_threshold=0.5)),
        ({"confidence_threshold": 0, "iou_threshold": 1}, Settings(0.0, 1.0)),
        ({"max_detections": "7"}, Settings(max_detections=7)),
        ({"max_detections": 7.0}, Settings(max_detections=7)),
        ({"classes": " FEET_EXPOSED ,FACE_FEMALE,"}, Settings(classes=frozenset({0, 2}))),
        ({"on_error": "report"}, Settings()),
    ],
)
def test_parameters_are_understood(parameters, expected):
    assert parse_settings(parameters, LABELS) == expected


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"confidence_threshold": 3}, "confidence_threshold must be in [0,1], got 3"),
        ({"confidence_threshold": -0.01}, "confidence_threshold must be in [0,1], got -0.01"),
        ({"confidence_threshold": "nan"}, "confidence_threshold must be in [0,1], got nan"),
        ({"confidence_threshold": True}, "confidence_threshold must be a number in [0,1], got True"),
        ({"iou_threshold": "much"}, "iou_threshold must be a number in [0,1], got 'much'"),
        ({"iou_threshold": None}, "iou_threshold must be a number in [0,1], got None"),
        ({"max_detections": 0}, "max_detections must be in [1,1000], got 0"),
        ({"max_detections": 10**30}, "max_detections must be in [1,1000], got 1e+30"),
        ({"max_detections": "inf"}, "max_detections must be in [1,1000], got inf"),
        ({"max_detections": 1.5}, "max_detections must be a whole number, got 1.5"),
        ({"classes": ""}, "classes must be comma-separated label names, got ''"),
        ({"classes": "FACE_FEMALE,DOG"}, "got 'DOG'; known: FACE_FEMALE, FACE_MALE, FEET_EXPOSED"),
        ({"classes": 3}, "got '3'"),
        (
            {"confidence": 0.5},
            "unknown parameter 'confidence'; known: confidence_threshold, iou_threshold, max_detections, classes, ",
        ),
    ],
)
def test_wrong_parameters_are_named(parameters, message):
    with pytest.raises(ParameterError) as refused:
        parse_settings(parameters, LABELS)
    assert message in str(refused.value)
    assert refused.value.reason == "parameters"
