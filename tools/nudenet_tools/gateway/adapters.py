"""Requests and answers of other services, so that their clients can change the address and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nudenet_tools.gateway.answers import Found
from nudenet_tools.gateway.errors import Refused

# Misskey adds up nothing: it compares each class with thresholds of its own.
MISSKEY_POLICY = "strict"
_EXPLICIT = ("ANUS_EXPOSED", "FEMALE_GENITALIA_EXPOSED", "MALE_GENITALIA_EXPOSED")


def nudenet(found: Sequence[Found]) -> dict[str, Any]:
    """As NudeNet's own container answers ``POST /infer``: boxes are x, y, width, height in whole pixels.

    Raises:
        Refused: a picture was refused; there is no answer for a part of them.
    """
    _all_answered(found)
    return {"prediction": [_nudenet_picture(one) for one in found], "success": True}


def _nudenet_picture(found: Found) -> list[dict[str, Any]]:
    return [
        {
            "class": one.label,
            "score": one.confidence,
            "box": [round(x1), round(y1), round(x2 - x1), round(y2 - y1)],
        }
        for frame in found.frames
        for one in frame
        for x1, y1, x2, y2 in [one.box]
    ]


def misskey(found: Sequence[Found]) -> dict[str, Any]:
    """As misskey-dev/sensitive-detector answers ``POST /v1/detect-images``.

    ``Porn`` is the highest confidence among exposed genitalia and anus, ``Sexy`` that of all else that the policy
    `MISSKEY_POLICY` finds, ``Neutral`` what remains. It says nothing of drawings. The most probable class comes first.

    Raises:
        Refused: a picture was refused. The original answers such a part beside the others, which its callers may take
            for a picture in which nothing is.
    """
    _all_answered(found)
    return {"success": True, "result": {"results": [_misskey_picture(one) for one in found]}}


def _misskey_picture(found: Found) -> dict[str, Any]:
    porn = sexy = 0.0
    for frame in found.frames:
        for finding in frame.reasons.get("findings", ()):
            if finding["class"] in _EXPLICIT:
                porn = max(porn, finding["confidence"])
            else:
                sexy = max(sexy, finding["confidence"])
    # Equal ones stay in the order of nsfwjs, as in the original.
    probabilities = {"Drawing": 0.0, "Hentai": 0.0, "Neutral": 1 - max(porn, sexy), "Porn": porn, "Sexy": sexy}
    ordered = sorted(probabilities.items(), key=lambda one: -one[1])
    predictions = [{"className": name, "probability": round(value, 6)} for name, value in ordered]
    return {"success": True, "predictions": predictions}


def misskey_error(refused: Refused) -> dict[str, Any]:
    """The body of an HTTP error in the same format."""
    codes = {
        401: "AUTHENTICATION_REQUIRED",
        413: "REQUEST_TOO_LARGE",
        415: "UNSUPPORTED_MEDIA_TYPE",
        422: "IMAGE_DECODE_FAILED",
        429: "MODEL_UNAVAILABLE",  # the original has no limit of rates and no code for one
        503: "MODEL_UNAVAILABLE",
    }
    code = codes.get(refused.status, "INVALID_REQUEST" if refused.status < 500 else "DETECTION_FAILED")
    return {"success": False, "error": {"code": code, "message": refused.message}}


def _all_answered(found: Sequence[Found]) -> None:
    for i, one in enumerate(found):
        if one.reason or one.verdict == "error":
            raise Refused(422, "picture_refused", f"picture {i}: {one.reason or 'it could not be judged'}")
