"""What process 1 of the images makes of its arguments and environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from container import entrypoint, repository, security

ROOT = Path(__file__).parents[3]
RESTRICTED = re.compile(r"--(?:http-restricted-api|grpc-restricted-protocol)=([\w,-]+):admin-key=(.+)")


def restricted(arguments: list[str]) -> dict[str, str]:
    """Interface -> key, over both front ends, which must agree."""
    found: dict[str, str] = {}
    for argument in arguments:
        if match := RESTRICTED.fullmatch(argument):
            for interface in match[1].split(","):
                assert found.setdefault(interface, match[2]) == match[2]
    return found


def test_administration_is_closed_without_a_key():
    first, second = (
        restricted(security.arguments(options.admin_key, options.exposure))
        for options in (entrypoint.options([], {}), entrypoint.options([], {"ADMIN_KEY": ""}))
    )
    assert first.keys() == {*security.CLOSED_WHEN_EXPOSED, security.SHARED_MEMORY}
    assert all(len(key) >= 32 for key in (*first.values(), *second.values()))
    assert not set(first.values()) & set(second.values())


def test_a_given_key_opens_administration_but_not_shared_memory():
    options = entrypoint.options([], {"ADMIN_KEY": "given"})
    keys = restricted(security.arguments(options.admin_key, options.exposure))
    assert keys.pop(security.SHARED_MEMORY) != "given"
    assert set(keys.values()) == {"given"}


def test_ports_are_known_to_the_watchman_and_the_rest_goes_to_the_server():
    environment = {"MODEL_REPOSITORY": "/mnt/models", "MODEL_CONFIG_NAME": "live"}
    options = entrypoint.options(["--http-port=8080", "--trace-config=level=OFF", "--grpc-port", "9000"], environment)
    assert (options.ports.http, options.ports.grpc, options.ports.metrics) == (8080, 9000, 8002)
    assert options.arguments[-1] == "--trace-config=level=OFF"
    assert (options.model_repository, options.config_name) == (Path("/mnt/models"), "live")
    assert entrypoint.options([], {}).model_repository == repository.MODEL_REPOSITORY


def test_without_a_plan_nothing_starts(tmp_path: Path):
    (tmp_path / "nudenet_trt").mkdir()
    (tmp_path / "nudenet_trt" / "config.pbtxt").write_text('platform: "tensorrt_plan"')
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "tools"), "MODEL_REPOSITORY": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "container.entrypoint"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "there is no plan at" in done.stdout
    assert "make plan" in done.stdout


def test_the_folder_is_self_contained():
    """Images copy tools/container and nothing else of tools."""
    imported = set()
    for path in (ROOT / "tools" / "container").glob("*.py"):
        imported |= set(re.findall(r"^\s*(?:from|import) (\w+)", path.read_text(), re.MULTILINE))
    assert imported - sys.stdlib_module_names == {"container", "google", "numpy", "tritonclient"}
