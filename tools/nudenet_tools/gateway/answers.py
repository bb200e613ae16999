"""The JSON that the gateway answers, and what OpenAPI says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, Field

from nudenet_client import Detections

Verdict = Literal["allow", "review", "block", "error"]
SEVERITY = ("", "allow", "review", "error", "block")  # a picture that nobody could look at outweighs a doubtful one


class Detection(BaseModel):
    """One find."""

    label: str = Field(examples=["FACE_FEMALE"])
    class_id: int
    confidence: float = Field(ge=0, le=1, examples=[0.847])
    box: list[float] = Field(
        description="x1, y1, x2, y2 in pixels of the upright picture", examples=[[429.16, 155.33, 687.44, 399.9]]
    )


class Frame(BaseModel):
    """What was found in one frame of an animation."""

    detections: list[Detection] | None = None
    error: str | None = Field(None, description="why it was refused; then there are no detections")
    verdict: Verdict | None = None
    reasons: dict[str, Any] | None = Field(None, description="see docs/decisions.md")


class Picture(Frame):
    """What was found in one picture. An animation has `frames` in place of `detections` and `reasons`."""

    name: str | None = Field(None, description="of the file, as sent")
    width: int | None = None
    height: int | None = None
    frames: list[Frame] | None = None


class DetectAnswer(BaseModel):
    """Of ``/v1/detect``; pictures in the order of the request."""

    pictures: list[Picture]


class ModerateAnswer(DetectAnswer):
    """Of ``/v1/moderate``; `verdict` is the most severe one of all pictures: allow, review, error, block."""

    verdict: Verdict


class ErrorText(BaseModel):
    """Why there is no answer."""

    code: str = Field(examples=["unavailable"])
    message: str = Field(examples=["no server has room for this request; try again"])


class Error(BaseModel):
    """Every answer that is not a result."""

    error: ErrorText


@dataclass(frozen=True)
class Found:
    """One picture with the answers for its frames; none where it was refused here."""

    name: str | None
    frames: Sequence[Detections]
    error: str = ""

    @property
    def reason(self) -> str:
        """Why the picture, or a frame of it, was refused; empty where it was not."""
        return self.error or next((frame.error for frame in self.frames if frame.error is not None), "")

    @property
    def verdict(self) -> str:
        """The most severe one of its frames."""
        return "error" if self.error else worst(frame.verdict for frame in self.frames)

    def to_dict(self, judged: bool) -> dict[str, Any]:
        """As `Picture`."""
        entry: dict[str, Any] = {} if self.name is None else {"name": self.name}
        if self.error:
            return entry | {"error": self.error} | ({"verdict": "error"} if judged else {})
        if len(self.frames) == 1:
            return entry | _frame(self.frames[0])
        first = self.frames[0]
        entry |= {"width": first.width, "height": first.height}
        if judged:
            entry["verdict"] = self.verdict
        return entry | {"frames": [_frame(frame, size=False) for frame in self.frames]}


def _frame(found: Detections, size: bool = True) -> dict[str, Any]:
    entry = found.to_dict("")
    del entry["image"]
    if not size:
        entry.pop("width", None)
        entry.pop("height", None)
    return entry


def worst(verdicts: Any) -> str:
    """The most severe of some verdicts."""
    return max(verdicts, key=SEVERITY.index, default="error")
