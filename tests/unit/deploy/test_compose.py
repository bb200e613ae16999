"""deploy/compose.yaml and the image it builds: valid, pinned, local, locked down, and its parts find each other."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from nudenet_tools.server import repository
from nudenet_tools.server.process import SHM_PER_INSTANCE

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
PROFILES = ("gpu", "cpu", "tracing")


def compose() -> list[str]:
    """The compose command of this machine: Docker's plugin, or the older program."""
    plugin = shutil.which("docker") and subprocess.run(
        ["docker", "compose", "version"], capture_output=True, check=False
    )
    return ["docker", "compose"] if plugin and plugin.returncode == 0 else ["docker-compose"]


def config(*profiles: str, **environment: str) -> subprocess.CompletedProcess[str]:
    options = [option for profile in profiles for option in ("--profile", profile)]
    return subprocess.run(
        [*compose(), "-f", str(DEPLOY / "compose.yaml"), *options, "config"],
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def services() -> dict[str, dict]:
    """All services, as compose understands the file."""
    result = config(*PROFILES, GRAFANA_PASSWORD="secret")
    assert result.returncode == 0, result.stderr
    return yaml.safe_load(result.stdout)["services"]


@pytest.mark.needs("docker-compose")
def test_without_a_password_grafana_does_not_start():
    result = config("cpu")
    assert result.returncode != 0
    assert "GRAFANA_PASSWORD" in result.stderr


@pytest.mark.needs("docker-compose")
def test_each_profile_is_one_whole_service(services: dict[str, dict]):
    for profile in ("gpu", "cpu"):
        members = {name for name, service in services.items() if profile in service["profiles"]}
        assert members == {f"triton-{profile}", f"canary-{profile}", "prometheus", "grafana"}


@pytest.mark.needs("docker-compose")
def test_everything_is_pinned_unprivileged_and_read_only(services: dict[str, dict]):
    for name, service in services.items():
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), f"{name}: {service['image']}"
        assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True and not service["user"].startswith("0"), name


def test_nothing_listens_beyond_this_machine():
    for name, service in yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name


def test_mounted_files_exist_and_cannot_be_written():
    for name, service in yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"].items():
        for volume in service.get("volumes", ()):
            source, _, mode = (*volume.split(":"), "rw")[:3]
            if source.startswith("."):
                assert mode == "ro" and (DEPLOY / source).exists(), f"{name}: {volume}"


@pytest.mark.parametrize(("name", "config_name"), [("triton-gpu", ""), ("triton-cpu", "cpu")])
def test_shared_memory_suffices_for_all_python_instances(name: str, config_name: str):
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"][name]
    configs = [repository.read_config(repository.config_path(model, config_name)) for model in repository.STEPS]
    instances = sum(group.count for model in configs if model.backend == "python" for group in model.instance_group)
    size = int(service["shm_size"].removesuffix("mb").removesuffix("gb"))
    size <<= 30 if service["shm_size"].endswith("gb") else 20
    assert size >= 1.5 * instances * SHM_PER_INSTANCE


@pytest.mark.needs("docker-compose")
def test_prometheus_and_grafana_find_what_they_ask(services: dict[str, dict]):
    jobs = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    hosts = {job["static_configs"][0]["targets"][0].split(":")[0] for job in jobs}
    for profile in ("gpu", "cpu"):
        members = [service for service in services.values() if profile in service["profiles"]]
        aliases = {
            alias
            for service in members
            for network in (service.get("networks") or {}).values()
            for alias in (network or {}).get("aliases", ())
        }
        assert aliases == hosts
    (source,) = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090" and "prometheus" in services
    (provider,) = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/nudenet.yml").read_text())["providers"]
    assert f":{provider['options']['path']}/dashboard.json:ro" in (DEPLOY / "compose.yaml").read_text()


@pytest.mark.needs("docker-compose")
def test_traces_go_to_the_service_that_takes_them(services: dict[str, dict]):
    for name in ("triton-gpu", "triton-cpu"):
        assert "--trace-config=opentelemetry,url=http://jaeger:4318/v1/traces" in services[name]["command"]
        assert "--trace-config=level=OFF" in services[name]["command"]
    assert services["jaeger"]["profiles"] == ["tracing"]


def pins(path: Path) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)(?:\[[\w,]+\])?==([\w.]+)(?!.*python_version)", path.read_text(), re.MULTILINE)
    return {name.lower(): version for name, version in found}


def test_cpu_image_has_the_tested_versions():
    tested = pins(ROOT / "requirements" / "constraints.txt") | pins(ROOT / "requirements.txt")
    for name, version in pins(ROOT / "requirements" / "image-cpu.txt").items():
        assert tested[name] == version, name


def test_cpu_image_copies_what_exists_and_is_sent_to_the_builder():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    text = (DEPLOY / "Dockerfile.cpu").read_text().replace("\\\n", " ")
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert any(f"!{part}" in ignored for part in (source, source.split("/")[0])), f"{source} is ignored"


def test_cpu_image_runs_as_an_ordinary_user_with_the_cpu_configuration():
    text = (DEPLOY / "Dockerfile.cpu").read_text().replace("\\\n", " ")
    entrypoint = json.loads(re.findall(r"^ENTRYPOINT (.+)$", text, re.MULTILINE)[-1])
    assert entrypoint[:2] == ["/opt/nudenet/tools/container/batch.sh", "tritonserver"]
    assert "--model-config-name=cpu" in entrypoint
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE)[-1] == "1000:1000"
