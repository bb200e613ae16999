"""The parameters that a request carries, bounded before anything looks at them."""

from __future__ import annotations

import json
from typing import Any

from nudenet_steps.serving.failures import RequestError

MAX_BYTES = 4096  # every parameter at its longest takes less than 1,000


def read(request: Any) -> dict[str, Any]:
    """Parameters of a Triton request, by name.

    Raises:
        RequestError: they take more than `MAX_BYTES` as JSON.
    """
    text = request.parameters()
    if not text:
        return {}
    if len(text) > MAX_BYTES:
        raise RequestError(f"request parameters take {len(text)} bytes, the limit is {MAX_BYTES}", "parameters")
    return json.loads(text)
