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

from container import instances, limits, repository

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
PROFILES = ("gpu", "cpu", "gateway", "tracing")
NEEDED = {"GRAFANA_PASSWORD": "secret", "TLS_FOLDER": "/tls", "KEYS_FOLDER": "/keys"}


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
    result = config(*PROFILES, **NEEDED)
    assert result.returncode == 0, result.stderr
    return yaml.safe_load(result.stdout)["services"]


@pytest.mark.needs("docker-compose")
@pytest.mark.parametrize("name", NEEDED)
def test_nothing_starts_without_a_password_a_certificate_and_keys(name: str):
    result = config("cpu", **{key: value for key, value in NEEDED.items() if key != name})
    assert result.returncode != 0
    assert name in result.stderr


@pytest.mark.needs("docker-compose")
def test_each_profile_is_one_whole_service(services: dict[str, dict]):
    for profile in ("gpu", "cpu"):
        members = {name for name, service in services.items() if profile in service["profiles"]}
        assert members == {f"triton-{profile}", f"canary-{profile}", "proxy", "prometheus", "grafana"}


@pytest.mark.needs("docker-compose")
def test_everything_is_pinned_unprivileged_and_read_only(services: dict[str, dict]):
    for name, service in services.items():
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), f"{name}: {service['image']}"
        assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True and not service["user"].startswith("0"), name


@pytest.mark.needs("docker-compose")
def test_only_the_proxy_and_the_dashboards_are_published_and_on_this_machine(services: dict[str, dict]):
    published = {name: service["ports"] for name, service in services.items() if service.get("ports")}
    assert published.keys() == {"proxy", "prometheus", "grafana", "jaeger"}
    for name, service in yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"].items():
        assert all(
            port.startswith(("127.0.0.1:", "${PROXY_ADDRESS:-127.0.0.1}:")) for port in service.get("ports", ())
        ), name


@pytest.mark.needs("docker-compose")
def test_the_proxy_reaches_what_the_servers_are_called(services: dict[str, dict]):
    (target,) = re.findall(r"^  server (\w+):(\d+) resolve", (DEPLOY / "nginx/servers-compose.conf").read_text(), re.M)
    for profile in ("gpu", "cpu"):
        assert target[0] in services[f"triton-{profile}"]["networks"]["default"]["aliases"]
    assert target[1] == "8001"


@pytest.mark.needs("docker-compose")
def test_the_gateway_asks_for_keys_reaches_the_servers_and_is_reached_by_the_proxy_only(services: dict[str, dict]):
    gateway = services["gateway"]
    options = dict(argument.split("=", 1) for argument in gateway["command"])
    assert options["--keys"].startswith("/keys/") and not gateway.get("ports")
    assert options["--url"] == "triton:8001"
    names = (DEPLOY / "nginx/servers-compose.conf").read_text()
    assert re.findall(r"default (\S+);", names) == ["gateway:8080"]


def test_mounted_files_exist_and_cannot_be_written():
    for name, service in yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"].items():
        for volume in service.get("volumes", ()):
            source, _, mode = (*volume.split(":"), "rw")[:3]
            if source.startswith("."):
                assert mode == "ro" and (DEPLOY / source).exists(), f"{name}: {volume}"


def shm_size(name: str) -> int:
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"][name]
    return int(service["shm_size"].removesuffix("mb")) << 20


def largest_requests(folder: Path, config_name: str, tuned: repository.Tuning) -> int:
    repository.write_effective(folder, config_name, tuned)
    return limits.shared_memory(repository.effective_configs(folder))


def test_shared_memory_holds_the_largest_requests(tmp_path: Path):
    production = largest_requests(tmp_path / "gpu", "", repository.Tuning())
    assert production <= shm_size("triton-gpu") <= 1.3 * production
    few, many = (largest_requests(tmp_path / str(cores), "cpu", instances.for_cpu(cores)) for cores in (12, 16))
    assert few <= shm_size("triton-cpu") <= many


@pytest.mark.needs("docker-compose")
def test_prometheus_and_grafana_find_what_they_ask(services: dict[str, dict]):
    jobs = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    hosts = {job["static_configs"][0]["targets"][0].split(":")[0] for job in jobs if "static_configs" in job}
    servers, gateway = [lookup for job in jobs for lookup in job.get("dns_sd_configs", ())]
    assert (servers["names"], servers["port"]) == (["triton"], 8002)  # every server that --scale starts
    hosts |= {"triton"}
    assert all(name in services for name in gateway["names"])
    assert f"{gateway['port']}" in Path(ROOT / "deploy" / "Dockerfile.gateway").read_text()
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


@pytest.mark.parametrize("dockerfile", ["Dockerfile.cpu", "Dockerfile.gateway"])
def test_image_copies_what_exists_and_is_sent_to_the_builder(dockerfile: str):
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    text = (DEPLOY / dockerfile).read_text().replace("\\\n", " ")
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert any(f"!{part}" in ignored for part in (source, source.split("/")[0])), f"{source} is ignored"


def test_gateway_image_starts_from_the_cpu_images_python():
    tags = {
        re.search(r"^ARG PYTHON_TAG=(.+)$", (DEPLOY / f"Dockerfile.{name}").read_text(), re.MULTILINE)[1]
        for name in ("cpu", "gateway")
    }
    assert len(tags) == 1


def test_cpu_image_runs_as_an_ordinary_user_with_the_cpu_configuration():
    text = (DEPLOY / "Dockerfile.cpu").read_text().replace("\\\n", " ")
    entrypoint = json.loads(re.findall(r"^ENTRYPOINT (.+)$", text, re.MULTILINE)[-1])
    assert entrypoint == ["python3", "-m", "container.entrypoint"]
    assert "MODEL_CONFIG_NAME=cpu" in text
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE)[-1] == "1000:1000"
