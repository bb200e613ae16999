"""Which traffic a Python step works for. All three Python steps use this file; two of them are links to it.

Triton's priorities end in a step's queue: work that has begun is never interrupted, and on a CPU one batch of bulk
pictures is tens of milliseconds. The operating system does interrupt. So bulk traffic may have processes of its own,
which run only while nobody else wants the core.
"""

from __future__ import annotations

import os
from typing import Any

LIVE, BULK = "live", "bulk"


def join(config: dict, pb_utils: Any) -> str:
    """Take the place that the model's parameter `lane` names; to be called before a step starts threads.

    Args:
        config: the model's configuration, from JSON.
        pb_utils: Triton's module, to warn with.

    Returns:
        ``live``, also where the configuration does not say, or ``bulk``. The thread that calls, and those that it
        starts later, then run under SCHED_IDLE. Triton's own threads in the process stay as they are: they tell the
        server that the process is alive.

    Raises:
        ValueError: another lane.
    """
    lane = config["parameters"].get("lane", {"string_value": LIVE})["string_value"]
    if lane not in (LIVE, BULK):
        raise ValueError(f"lane must be {LIVE} or {BULK}, got {lane!r}")
    if lane == BULK:
        try:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        except OSError as error:  # a container may forbid it
            pb_utils.Logger.log_warn(f"{config['name']} cannot step back behind live traffic: {error.strerror}")
    return lane
