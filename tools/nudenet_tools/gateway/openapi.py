"""What OpenAPI says of bodies and answers beyond what the types tell."""

from __future__ import annotations

from typing import Any

from nudenet_tools.gateway.answers import Error
from nudenet_tools.gateway.intake import JsonPictures

_DETECTION = {"label": "FACE_FEMALE", "class_id": 1, "confidence": 0.847, "box": [429.16, 155.33, 687.44, 399.9]}
_PICTURE = {"name": "astronaut_720p.jpg", "width": 1280, "height": 720, "detections": [_DETECTION]}
_REASONS = {"policy": "standard", "version": 1, "policy_sha256": "c0ffee", "network_sha256": "beef", "findings": []}
DETECT_EXAMPLE = {"pictures": [_PICTURE]}
MODERATE_EXAMPLE = {"verdict": "allow", "pictures": [_PICTURE | {"verdict": "allow", "reasons": _REASONS}]}
NUDENET_EXAMPLE = {
    "prediction": [[{"class": "FACE_FEMALE", "score": 0.847, "box": [429, 155, 258, 245]}]],
    "success": True,
}
MISSKEY_EXAMPLE = {
    "success": True,
    "result": {
        "results": [
            {
                "success": True,
                "predictions": [
                    {"className": name, "probability": value}
                    for name, value in (("Neutral", 0.8), ("Sexy", 0.2), ("Drawing", 0), ("Hentai", 0), ("Porn", 0))
                ],
            }
        ]
    },
}
_BINARY = {"type": "string", "format": "binary"}
_FILES = {
    "type": "object",
    "properties": {"file": {"type": "array", "items": _BINARY, "minItems": 1}},
    "required": ["file"],
    "additionalProperties": False,
}
_JSON = {"image": "/9j/4AAQSkZJRg=="}

_RETRY = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": Error, "description": "Wrong parameter or body"},
    401: {"model": Error, "description": "Unknown key"},
    408: {"model": Error, "description": "The body did not come in time"},
    413: {"model": Error, "description": "Over a limit"},
    415: {"model": Error, "description": "Unknown type of body"},
    429: {"model": Error, "description": "Too many requests of this client", "headers": _RETRY},
    502: {"model": Error, "description": "A server failed on this request"},
    503: {"model": Error, "description": "No room; try again", "headers": _RETRY},
    504: {"model": Error, "description": "No answer within the deadline"},
}
UNAVAILABLE: dict[int | str, dict[str, Any]] = {503: _ERRORS[503]}


def pictures(model: type, example: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a route that takes pictures in any way."""
    answer = {"content": {"application/json": {"example": example}}}
    return {
        "responses": {
            200: {"model": model} | answer,
            422: {"model": model, "description": "All pictures were refused; the body says why"},
            **_ERRORS,
        },
        "openapi_extra": {
            "requestBody": {
                "required": True,
                "content": {
                    "image/*": {"schema": _BINARY},
                    "application/octet-stream": {"schema": _BINARY},
                    "multipart/form-data": {"schema": _FILES},
                    "application/json": {"schema": JsonPictures.model_json_schema(), "example": _JSON},
                },
            }
        },
    }


def adapter(example: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a route that takes multipart files."""
    # Errors come in the other service's own format where it has one.
    errors = {status: {"description": entry["description"]} for status, entry in _ERRORS.items()}
    return {
        "responses": {
            200: {"content": {"application/json": {"example": example}}},
            422: {"description": "A picture was refused"},
            **errors,
        },
        "openapi_extra": {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FILES}}}},
    }
