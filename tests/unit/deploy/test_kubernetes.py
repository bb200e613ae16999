"""deploy/kubernetes: valid by Kubernetes' own schemas, locked down, and its parts refer to each other rightly."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from pathlib import Path

import kubernetes_rule
import kubernetes_validate
import pytest
import yaml

from helpers import manifests
from nudenet_tools.server import repository
from nudenet_tools.server.process import SHM_PER_INSTANCE

ROOT = Path(__file__).parents[3]
# From the oldest release with everything used here that the schemas cover, to the newest.
VERSIONS = ("1.27", "1.37")
SERVED_ELSEWHERE = {"PodMonitor", "PrometheusRule", "ScaledObject", "ServingRuntime", "InferenceService"}
SERVERS = {"app.kubernetes.io/name": "nudenet", "app.kubernetes.io/component": "server"}
WITH_DEPLOYMENT = [folder for folder in manifests.FOLDERS if folder != "overlays/kserve"]
CONTAINERS = [
    pytest.param(container, id=f"{folder}: {container['name']}")
    for folder in manifests.FOLDERS
    for container in manifests.containers(folder)
]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("folder", manifests.FOLDERS)
def test_resources_follow_the_schema_of_kubernetes(folder: str, version: str):
    checked = 0
    for resource in manifests.render(folder):
        if resource["kind"] not in SERVED_ELSEWHERE:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # jsonschema's own
                kubernetes_validate.validate(resource, version, strict=True)
            checked += 1
    assert checked >= 8 or folder == "overlays/kserve"


def test_the_schemas_would_catch_a_misspelt_field():
    resource = {**manifests.find("base", "Service"), "spec": {"clusterIp": "None"}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(resource, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("container", CONTAINERS)
def test_container_can_do_nothing_but_its_work(container: dict):
    security = container["securityContext"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert re.fullmatch(r"[\w./-]+:[\w.]+", container["image"]), "the image's tag must be pinned"
    assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
    assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("folder", WITH_DEPLOYMENT)
def test_pods_run_as_an_ordinary_user_without_a_token(folder: str):
    for pod in manifests.pod_specs(folder):
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert pod["serviceAccountName"] == manifests.find(folder, "ServiceAccount")["metadata"]["name"]


@pytest.mark.parametrize("folder", manifests.FOLDERS)
def test_mounts_have_volumes_and_served_models_are_read_only(folder: str):
    for pod in manifests.pod_specs(folder):
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
            assert mounts.keys() <= volumes
            if "models" in mounts and container["name"] != "plan":
                assert mounts["models"]["readOnly"] is True


@pytest.mark.parametrize("folder", ["base", "overlays/kserve"])
def test_shared_memory_suffices_for_all_python_instances(folder: str):
    configs = [repository.read_config(repository.config_path(model)) for model in repository.STEPS]
    python = [config for config in configs if config.backend == "python"]
    instances = sum(group.count for config in python for group in config.instance_group)
    (limit,) = [
        volume["emptyDir"]["sizeLimit"]
        for pod in manifests.pod_specs(folder)
        for volume in pod["volumes"]
        if volume["name"] == "shm"
    ]
    assert int(limit.removesuffix("Gi")) << 30 >= 1.5 * instances * SHM_PER_INSTANCE


@pytest.mark.parametrize("folder", WITH_DEPLOYMENT)
def test_everything_selects_the_servers(folder: str):
    deployment = manifests.find(folder, "Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert labels == deployment["selector"]["matchLabels"] == SERVERS
    assert manifests.find(folder, "Service")["spec"]["selector"] == SERVERS
    assert manifests.find(folder, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == SERVERS
    policy = manifests.find(folder, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    assert policy.items() <= SERVERS.items()
    job = manifests.find(folder, "Job", "nudenet-plan")["spec"]["template"]
    assert policy.items() <= job["metadata"]["labels"].items(), "the plan's Job needs no network either"
    assert job["metadata"]["labels"]["app.kubernetes.io/component"] != "server", "the Job gets no requests"
    assert job["spec"]["nodeSelector"] == deployment["template"]["spec"]["nodeSelector"]


def test_service_is_headless_and_names_ports_that_exist():
    service = manifests.find("base", "Service")["spec"]
    (triton,) = manifests.find("base", "Deployment")["spec"]["template"]["spec"]["containers"]
    assert triton["name"] == "triton"
    ports = {port["name"]: port["containerPort"] for port in triton["ports"]}
    assert service["clusterIP"] == "None"
    assert {port["targetPort"]: port["port"] for port in service["ports"]}.items() <= ports.items()
    for name, port in ports.items():
        assert f"--{name}-port={port}" in triton["args"]


def test_without_tracing_nothing_gets_out():
    assert manifests.find("overlays/hpa", "NetworkPolicy")["spec"]["egress"] == []
    (collector, names) = manifests.find("overlays/tracing", "NetworkPolicy")["spec"]["egress"]
    assert [port["port"] for port in collector["ports"]] == [4318]
    assert {port["port"] for port in names["ports"]} == {53}


def test_monitors_scrape_the_jobs_that_rules_and_dashboard_select():
    pod = manifests.find("overlays/monitoring", "Deployment")["spec"]["template"]["spec"]
    ports = {port["name"] for container in pod["containers"] for port in container["ports"]}
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    jobs = set()
    for name in ("nudenet", "nudenet-canary"):
        monitor = manifests.find("overlays/monitoring", "PodMonitor", name)["spec"]
        assert monitor["selector"]["matchLabels"] == SERVERS
        for endpoint in monitor["podMetricsEndpoints"]:
            assert endpoint["port"] in ports
            jobs |= {rule["replacement"] for rule in endpoint["relabelings"] if rule["targetLabel"] == "job"}
    assert jobs == {job["job_name"] for job in config["scrape_configs"]}


def test_operator_gets_the_very_rules_that_promtool_tested():
    made = kubernetes_rule.manifest()
    assert kubernetes_rule.TARGET.read_text() == made, "run python deploy/prometheus/kubernetes_rule.py"
    groups = manifests.find("overlays/monitoring", "PrometheusRule")["spec"]["groups"]
    files = [yaml.safe_load((ROOT / "deploy/prometheus" / name).read_text()) for name in ("rules.yml", "alerts.yml")]
    assert groups == [group for file in files for group in file["groups"]]


def test_autoscalers_read_a_recorded_measure_and_own_the_replicas():
    rules = yaml.safe_load((ROOT / "deploy/prometheus/rules.yml").read_text())["groups"][0]["rules"]
    recorded = {rule["record"] for rule in rules}
    values = yaml.safe_load((manifests.KUBERNETES / "overlays/hpa/prometheus-adapter-values.yaml").read_text())
    (adapter,) = values["rules"]["custom"]
    assert adapter["seriesQuery"].split("{")[0] in recorded
    hpa, scaled = (
        manifests.find("overlays/hpa", "HorizontalPodAutoscaler"),
        manifests.find("overlays/keda", "ScaledObject"),
    )
    (metric,) = hpa["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == adapter["name"]["as"]
    (trigger,) = scaled["spec"]["triggers"]
    assert any(name in trigger["metadata"]["query"] for name in recorded)
    # both aim at the same waiting time
    assert float(metric["pods"]["target"]["averageValue"].removesuffix("m")) / 1000 == float(
        trigger["metadata"]["threshold"]
    )
    for folder, target in (("overlays/hpa", hpa), ("overlays/keda", scaled)):
        assert target["spec"]["scaleTargetRef"]["name"] == manifests.find(folder, "Deployment")["metadata"]["name"]
        assert "replicas" not in manifests.find(folder, "Deployment")["spec"]


def test_dashboard_reaches_grafanas_sidecar():
    config_map = manifests.find("overlays/monitoring", "ConfigMap", "nudenet-dashboard")
    assert config_map["metadata"]["labels"] == {"grafana_dashboard": "1"}
    assert config_map["data"]["dashboard.json"] == (ROOT / "deploy/grafana/dashboard.json").read_text()


def test_kserve_runs_the_same_server_on_the_same_models():
    def settings(folder: str) -> set[str]:
        changed = (
            "--model-repository",
            "--http-port",
            "--grpc-port",
            "--grpc-max",
            "--grpc-restricted",
            "--http-restricted",
        )
        return {argument for argument in manifests.triton_arguments(folder) if not argument.startswith(changed)}

    assert settings("overlays/kserve") == settings("base")
    service = manifests.find("overlays/kserve", "InferenceService")["spec"]["predictor"]["model"]
    runtime = manifests.find("overlays/kserve", "ServingRuntime", service["runtime"])["spec"]
    assert service["modelFormat"]["name"] in {known["name"] for known in runtime["supportedModelFormats"]}
    assert service["protocolVersion"] in runtime["protocolVersions"]
    claim = manifests.find("base", "PersistentVolumeClaim", "nudenet-models")["metadata"]["name"]
    assert service["storageUri"] == f"pvc://{claim}"


def scripts() -> set[tuple[str, tuple[str, ...]]]:
    """(script, options) of every Python command line in the manifests, probes and the Job's shell lines included."""
    found = set()
    for folder in manifests.FOLDERS:
        for container in manifests.containers(folder):
            probe = container.get("livenessProbe", {}).get("exec", {}).get("command", [])
            lines = [" ".join(container.get("command", []) + container.get("args", [])), " ".join(probe)]
            for line in "\n".join(lines).splitlines():
                if match := re.search(r"python3 (?:/opt/nudenet/)?((?:build|tools)/[\w/]+\.py)(.*)", line):
                    found.add((match[1], tuple(re.findall(r"--[a-z-]+", match[2]))))
    return found


def test_tracing_speaks_to_the_collector_that_the_policy_allows():
    arguments = manifests.triton_arguments("overlays/tracing")
    assert set(arguments) > set(manifests.triton_arguments("base"))
    assert "--trace-config=mode=opentelemetry" in arguments
    (url,) = [argument for argument in arguments if argument.startswith("--trace-config=opentelemetry,url=")]
    collector, _ = manifests.find("overlays/tracing", "NetworkPolicy")["spec"]["egress"]
    namespace = collector["to"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
    assert f".{namespace}.svc:{collector['ports'][0]['port']}/" in url


def test_python_command_lines_exist_and_take_their_options():
    commands = scripts()
    assert {script for script, _ in commands} == {
        "build/convert_to_tensorrt.py",
        "tools/container/check_plan.py",
        "tools/container/healthcheck.py",
        "tools/container/canary_exporter.py",
    }
    dockerfile = (ROOT / "deploy/Dockerfile").read_text()
    for script, options in commands:
        copied = re.findall(r"^COPY ([\w/]+) \1$", dockerfile, re.M)
        assert any(script.startswith(f"{folder}/") for folder in copied), f"{script} is in no image"
        result = subprocess.run(
            [sys.executable, str(ROOT / script), "--help"],
            capture_output=True,
            text=True,
            check=True,
            env={"PATH": "/usr/bin", "COLUMNS": "200", "PYTHONPATH": str(ROOT / "tools")},  # as the image sets it
        )
        missing = [option for option in options if option not in result.stdout]
        assert not missing, f"{script} has no {missing}"
