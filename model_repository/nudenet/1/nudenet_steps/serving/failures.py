"""Failed responses of a step: one place decides their code, logs what is our fault, and counts.

Triton counts an error response of a Python model as a success, so alerts need a counter of our own.
"""

from __future__ import annotations

from typing import Any

from nudenet_steps.serving.metrics import Counters, Families

TOTAL = "nudenet_failures_total"
METRICS: Families = {TOTAL: ("Requests that a step answered with an error", ("step", "reason"))}
INTERNAL = "internal"  # not the request's fault, as far as we know


class RequestError(ValueError):
    """The request is at fault.

    Args:
        message: what came and what is accepted.
        reason: a slug for the metric.
    """

    def __init__(self, message: str, reason: str = "invalid") -> None:
        super().__init__(message)
        self.reason = reason


class Failures:
    """Error responses of one step.

    Args:
        pb_utils: Triton's module.
        counters: made with `METRICS` among its families.
        step: the model's name.
    """

    def __init__(self, pb_utils: Any, counters: Counters, step: str) -> None:
        self._pb_utils, self._counters, self._step = pb_utils, counters, step
        counters.add(TOTAL, 0, step, INTERNAL)  # a rate needs a first value: 0, before the first failure
        counters.flush()

    def response(self, error: Exception) -> Any:
        """The response for a request that ended with `error`: INVALID_ARG for a ValueError, else INTERNAL."""
        pb_utils = self._pb_utils
        reason = getattr(error, "reason", "invalid" if isinstance(error, ValueError) else INTERNAL)
        self._counters.add(TOTAL, 1, self._step, reason)
        if isinstance(error, ValueError):
            message, code = str(error), pb_utils.TritonError.INVALID_ARG
        else:
            pb_utils.Logger.log_error(f"{self._step}: {error!r}")
            message, code = f"{self._step} failed: {error!r}", pb_utils.TritonError.INTERNAL
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
