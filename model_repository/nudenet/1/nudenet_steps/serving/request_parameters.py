"""The parameters that a request carries, their size bounded before anything looks at them.

Thresholds and classes are validated by postprocess/parameters.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from reprlib import repr as quoted  # shortened: gRPC drops errors of more than 8 kB
from typing import Any

from nudenet_steps.serving.failures import RequestError

MAX_BYTES = 4096  # every parameter at its longest takes less than 1,000


def read(request: Any) -> dict[str, Any]:
    """Parameters of a Triton request, by name.

    Raises:
        RequestError: they take more than `MAX_BYTES` as JSON.
    """
    text = request.parameters()
    if text in ("", "{}"):  # nearly always; JSON's parser would have to come into the caches for it
        return {}
    if len(text) > MAX_BYTES:
        raise RequestError(f"request parameters take {len(text)} bytes, the limit is {MAX_BYTES}", "parameters")
    return json.loads(text)


def choice(given: Mapping[str, Any], name: str, values: Sequence[str]) -> str:
    """The parameter `name`, one of `values`; the first of them where it is not given.

    Raises:
        RequestError: another value.
    """
    value = given.get(name, values[0])
    if value not in values:
        raise RequestError(f"{name} must be one of {', '.join(values)}, got {quoted(value)}", "parameters")
    return value
