"""How many instances suit the cores that this process may use. docs/benchmark.md has the figures behind it."""

from __future__ import annotations

import os
from pathlib import Path

from container.repository import Tuning

_CGROUP = Path("/sys/fs/cgroup")


def quota(cgroup: Path = _CGROUP) -> float | None:
    """Cores that a container's CPU limit allows, e.g. 1.5; None without a limit.

    Args:
        cgroup: where the control groups are mounted, version 2 or 1.
    """
    try:
        if (cgroup / "cpu.max").is_file():
            allowed, period = (cgroup / "cpu.max").read_text().split()
        else:
            allowed, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(allowed) / int(period) if int(allowed) > 0 else None
    except (OSError, ValueError):  # "max" is no number
        return None


def cores(cgroup: Path = _CGROUP) -> int:
    """CPU cores that this process may use: those it may run on, or fewer where a quota is set."""
    available = len(os.sched_getaffinity(0))
    limit = quota(cgroup)
    return available if limit is None else max(1, min(available, round(limit)))


def for_cpu(cpu_cores: int, precision: str = "auto") -> Tuning:
    """The cpu configuration on `cpu_cores` cores.

    Args:
        cpu_cores: cores for server, steps and engine together.
        precision: of the detector: auto, FP32, BF16 or INT8.
    """
    return Tuning(
        instances={
            "nudenet_preprocess": max(2, cpu_cores // 2),
            "nudenet_trt": min(2, cpu_cores),  # one alone takes all threads, two at work half of them each
            "nudenet_postprocess": 1,
        },
        parameters={
            # Full batches for all cores; on few of them the committed 24.
            "nudenet_preprocess": {"max_in_flight": str(max(24, 5 * cpu_cores))},
            "nudenet_trt": {"threads": str(cpu_cores), "precision": precision},
        },
    )


def for_image(config_name: str, cgroup: Path = _CGROUP) -> Tuning:
    """What an image changes in configuration `config_name`: for a plan only the decoders, where a quota is set."""
    if config_name == "cpu":
        return for_cpu(cores(cgroup))
    if quota(cgroup) is None:
        return Tuning()
    return Tuning(instances={"nudenet_preprocess": max(2, cores(cgroup))})
