"""deploy/kubernetes: valid by Kubernetes' own schemas, locked down, and its parts refer to each other rightly."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import kubernetes_rule
import kubernetes_validate
import pytest
import yaml

from container import limits, repository
from helpers import manifests

ROOT = Path(__file__).parents[3]
# From the oldest release with everything used here that the schemas cover, to the newest.
VERSIONS = ("1.27", "1.37")
SERVED_ELSEWHERE = {"PodMonitor", "PrometheusRule", "ScaledObject"}
SERVERS = {"app.kubernetes.io/name": "nudenet", "app.kubernetes.io/component": "server"}
PROXIES = {"app.kubernetes.io/name": "nudenet", "app.kubernetes.io/component": "proxy"}
GATEWAYS = {"app.kubernetes.io/name": "nudenet", "app.kubernetes.io/component": "gateway"}
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
    assert checked >= 12


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


@pytest.mark.parametrize("folder", manifests.FOLDERS)
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


def test_shared_memory_holds_the_largest_requests():
    configs = {model: repository.read_config(repository.config_path(model)) for model in repository.MODELS}
    (limit,) = [
        volume["emptyDir"]["sizeLimit"]
        for pod in manifests.pod_specs("base")
        for volume in pod["volumes"]
        if volume["name"] == "shm"
    ]
    assert limits.shared_memory(configs) <= int(limit.removesuffix("Mi")) << 20 <= 1.3 * limits.shared_memory(configs)


@pytest.mark.parametrize("folder", manifests.FOLDERS)
def test_everything_selects_the_servers_the_proxy_or_the_gateway(folder: str):
    selected = [("nudenet", "nudenet-servers", SERVERS), ("nudenet-proxy", "nudenet", PROXIES)]
    if folder == "overlays/gateway":
        selected.append(("nudenet-gateway", "nudenet-gateway", GATEWAYS))
    for deployment, service, labels in selected:
        spec = manifests.find(folder, "Deployment", deployment)["spec"]
        assert labels == spec["template"]["metadata"]["labels"] == spec["selector"]["matchLabels"]
        assert manifests.find(folder, "Service", service)["spec"]["selector"] == labels
        budget = manifests.find(folder, "PodDisruptionBudget", deployment)["spec"]
        policy = manifests.find(folder, "NetworkPolicy", deployment)["spec"]
        assert labels == budget["selector"]["matchLabels"] == policy["podSelector"]["matchLabels"]


def test_services_name_ports_that_exist():
    servers = manifests.find("base", "Service", "nudenet-servers")["spec"]
    assert servers["clusterIP"] == "None"
    (triton,) = manifests.find("base", "Deployment")["spec"]["template"]["spec"]["containers"]
    (nginx,) = manifests.find("base", "Deployment", "nudenet-proxy")["spec"]["template"]["spec"]["containers"]
    for service, container in ((servers, triton), (manifests.find("base", "Service")["spec"], nginx)):
        ports = {port["name"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["ports"]} <= ports
    for name, port in {port["name"]: port["containerPort"] for port in triton["ports"]}.items():
        assert f"--{name}-port={port}" in triton["args"]


def peers(rules: list[dict], key: str) -> set[tuple[str, int]]:
    """(component, namespace or label, port) of the rules of a network policy."""
    found = set()
    for rule in rules:
        for peer in rule[key]:
            labels = peer.get("podSelector", peer.get("namespaceSelector"))["matchLabels"]
            name = labels.get("app.kubernetes.io/component") or next(iter(labels.values()))
            found |= {(name, port["port"]) for port in rule["ports"]}
    return found


def test_clients_reach_the_proxy_and_only_the_proxy_the_servers():
    servers = manifests.find("base", "NetworkPolicy")["spec"]
    proxy = manifests.find("base", "NetworkPolicy", "nudenet-proxy")["spec"]
    assert peers(servers["ingress"], "from") == {("proxy", 8001), ("monitoring", 8002), ("monitoring", 9402)}
    assert servers["egress"] == []
    assert peers(proxy["ingress"], "from") == {("true", 8443)}
    assert peers(proxy["egress"], "to") == {("server", 8001), ("kube-system", 53)}


def test_the_gateway_is_reached_through_the_proxy_and_reaches_the_servers():
    folder = "overlays/gateway"
    gateway = manifests.find(folder, "NetworkPolicy", "nudenet-gateway")["spec"]
    assert peers(gateway["ingress"], "from") == {("proxy", 8080), ("monitoring", 8081)}
    assert peers(gateway["egress"], "to") == {("server", 8001), ("kube-system", 53)}
    assert ("gateway", 8001) in peers(manifests.find(folder, "NetworkPolicy")["spec"]["ingress"], "from")
    proxy = manifests.find(folder, "NetworkPolicy", "nudenet-proxy")["spec"]
    assert peers(proxy["ingress"], "from") == {("true", 8443), ("true", 8444)}
    assert ("gateway", 8080) in peers(proxy["egress"], "to")
    (nginx,) = manifests.find(folder, "Deployment", "nudenet-proxy")["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in nginx["ports"]}
    assert {port["port"]: ports[port["targetPort"]] for port in manifests.find(folder, "Service")["spec"]["ports"]} == {
        443: 8443,
        8443: 8444,
    }


def test_the_gateway_has_keys_from_a_secret_and_publishes_no_metrics():
    folder = "overlays/gateway"
    pod = manifests.find(folder, "Deployment", "nudenet-gateway")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    options = dict(argument.split("=", 1) for argument in container["args"])
    (mount,) = [mount for mount in container["volumeMounts"] if options["--keys"].startswith(mount["mountPath"])]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == mount["name"]]
    assert mount["readOnly"] and volume["secret"] == {"secretName": "nudenet-gateway-keys"}
    servers = manifests.find(folder, "Service", "nudenet-servers")
    host, port = options["--url"].split(":")
    assert host == f"{servers['metadata']['name']}.{servers['metadata']['namespace']}.svc.cluster.local"
    assert int(port) == servers["spec"]["ports"][0]["port"]
    service = manifests.find(folder, "Service", "nudenet-gateway")
    assert [port["port"] for port in service["spec"]["ports"]] == [8080]
    (address,) = re.findall(
        r"default (\S+);",
        next(one for one in manifests.render(folder) if one["kind"] == "ConfigMap" and "servers.conf" in one["data"])[
            "data"
        ]["servers.conf"],
    )
    assert address == f"nudenet-gateway.{service['metadata']['namespace']}.svc.cluster.local:8080"
    compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"]["gateway"]
    assert container["image"] == compose["image"]


def test_the_proxy_runs_the_configuration_that_compose_runs():
    pod = manifests.find("base", "Deployment", "nudenet-proxy")["spec"]["template"]["spec"]
    (name,) = [volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume]
    data = manifests.find("base", "ConfigMap", name)["data"]
    assert data["nginx.conf"] == (ROOT / "deploy/nginx/nginx.conf").read_text()
    (host,) = re.findall(r"server ([\w.-]+):8001 resolve", data["servers.conf"])
    service = manifests.find("base", "Service", "nudenet-servers")["metadata"]
    assert host == f"{service['name']}.{service['namespace']}.svc.cluster.local"
    mounted = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert set(re.findall(r"/etc/nginx/(?:\w+\.conf|\w+(?=/))", data["nginx.conf"])) <= mounted
    compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"]["proxy"]
    assert pod["containers"][0]["image"] == compose["image"]


def test_the_plan_is_built_where_it_is_served():
    """In the server's own Pod: a Job could wait for the GPU that the server holds, or the other way round."""
    assert not [resource for resource in manifests.render("base") if resource["kind"] == "Job"]
    pod = manifests.find("base", "Deployment")["spec"]["template"]["spec"]
    (plan,), (triton,) = pod["initContainers"], pod["containers"]
    for container in (plan, triton):
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
        (models,) = [mount for mount in container["volumeMounts"] if mount["name"] == "models"]
        assert models["subPath"] == triton["image"].split(":")[1]  # a folder of its own for each release


@pytest.mark.parametrize("config_name", ["", "live"])
def test_the_plan_that_is_built_is_the_one_that_is_served(config_name: str, tmp_path: Path):
    pod = manifests.find("base", "Deployment")["spec"]["template"]["spec"]
    (plan,), (triton,) = pod["initContainers"], pod["containers"]
    for container in (plan, triton):
        assert {"name": "MODEL_CONFIG_NAME", "value": ""} in container["env"]
    models, home = tmp_path / "models", tmp_path / "opt"
    models.mkdir()
    (home / "model_repository").mkdir(parents=True)
    stub = tmp_path / "bin" / "python3"  # the plan is right once it has been built
    stub.parent.mkdir()
    stub.write_text('#!/bin/sh\necho "$*" >>"$CALLS"\n[ "$(wc -l <"$CALLS")" -gt 1 ]\n')
    stub.chmod(0o755)
    script = plan["args"][0].replace("/models/", f"{models}/").replace("/opt/nudenet", str(home))
    environment = {
        "PATH": f"{stub.parent}:{os.environ['PATH']}",
        "CALLS": str(tmp_path / "calls"),
        "MODEL_CONFIG_NAME": config_name,
    }
    subprocess.run(["/bin/sh", "-ec", script], env=environment, check=True)
    checked, built, again = (tmp_path / "calls").read_text().splitlines()
    config = repository.read_config(repository.config_path("nudenet_trt", config_name))
    served = models / "nudenet_trt" / "1" / (config.default_model_filename or "model.plan")
    assert checked == again == f"tools/container/check_plan.py {served}"
    assert built.startswith("build/convert_to_tensorrt.py ") and built.endswith(f" --output {served}")
    assert ("--live" in built) == (config_name == "live")


@pytest.mark.parametrize("folder", manifests.FOLDERS)
def test_a_registry_named_where_the_images_are_listed_reaches_every_container(folder: str, tmp_path: Path):
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    for name in ("base", "gateway"):
        path = tmp_path / f"deploy/kubernetes/{name}/kustomization.yaml"
        content = yaml.safe_load(path.read_text())
        for image in content["images"]:
            image["newName"] = f"registry.example/{image['name']}"
        path.write_text(yaml.safe_dump(content))
    folders = manifests.KUBERNETES.relative_to(ROOT)
    rendered = subprocess.run(
        ["kubectl", "kustomize", str(tmp_path / folders / folder)], capture_output=True, text=True, check=True
    ).stdout
    images = re.findall(r"^\s*(?:- )?image: (.+)$", rendered, re.MULTILINE)
    assert len(images) >= 3
    assert all(image.startswith("registry.example/") for image in images), images


def test_without_tracing_nothing_gets_out():
    assert manifests.find("overlays/hpa", "NetworkPolicy")["spec"]["egress"] == []
    (collector, names) = manifests.find("overlays/tracing", "NetworkPolicy")["spec"]["egress"]
    assert [port["port"] for port in collector["ports"]] == [4318]
    assert {port["port"] for port in names["ports"]} == {53}


def test_monitors_scrape_the_jobs_that_rules_and_dashboard_select():
    pod = manifests.find("overlays/monitoring", "Deployment")["spec"]["template"]["spec"]
    ports = {port["name"] for container in pod["containers"] for port in container["ports"]}
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    jobs = {"nudenet-gateway"}
    gateway = manifests.find("overlays/monitoring", "PodMonitor", "nudenet-gateway")["spec"]
    (deployment,) = yaml.safe_load_all((manifests.KUBERNETES / "gateway" / "gateway.yaml").read_text().split("---")[0])
    template = deployment["spec"]["template"]
    assert gateway["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert gateway["podMetricsEndpoints"][0]["port"] in [
        port["name"] for port in template["spec"]["containers"][0]["ports"]
    ]
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


def scripts() -> set[tuple[str, tuple[str, ...]]]:
    """(script, options) of every Python command line in the manifests, probes and shell lines included."""
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
    arguments = manifests.triton_options("overlays/tracing").arguments
    assert set(arguments) > set(manifests.triton_options("base").arguments)
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
