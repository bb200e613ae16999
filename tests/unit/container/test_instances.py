"""Cores come from the CPU limit of a container where one is set."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from container import instances

HERE = len(os.sched_getaffinity(0))


def cgroup(folder: Path, version: int, allowed: str) -> Path:
    if version == 2:
        (folder / "cpu.max").write_text(f"{allowed} 100000\n")
    else:
        (folder / "cpu").mkdir()
        (folder / "cpu" / "cpu.cfs_quota_us").write_text(f"{allowed}\n")
        (folder / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    return folder


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("allowed", "quota", "cores"),
    [("100000", 1.0, 1), ("20000", 0.2, 1), ("1600000", 16.0, min(16, HERE)), ("unlimited", None, HERE)],
)
def test_quota(tmp_path: Path, version: int, allowed: str, quota: float | None, cores: int) -> None:
    unlimited = {1: "-1", 2: "max"}[version]
    group = cgroup(tmp_path, version, unlimited if allowed == "unlimited" else allowed)
    assert instances.quota(group) == quota
    assert instances.cores(group) == cores


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert instances.quota(tmp_path) is None
    assert instances.cores(tmp_path) == HERE


def test_an_image_sets_what_fits_its_cores(tmp_path: Path) -> None:
    assert instances.for_image("", tmp_path).instances == {}  # as committed
    assert instances.for_image("cpu", tmp_path) == instances.for_cpu(HERE)
    group = cgroup(tmp_path, 2, "100000")
    assert instances.for_image("live", group).instances == {"nudenet_preprocess": 2}
    assert instances.for_image("cpu", group) == instances.for_cpu(1)
