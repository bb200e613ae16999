"""Images and containers for tests: stand-ins for base images, the compose project, and what happens inside."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
BASE_IMAGE = ROOT / "tests" / "containers" / "base_image.sh"
# Tags of our own: nobody's images are replaced.
CPU, SERVER, BUILDER, GATEWAY = (f"nudenet-test/{name}:1" for name in ("cpu", "server", "builder", "gateway"))
API_KEY = "a-key-of-a-client"
GATEWAY_KEY = "a-key-of-the-gateway's-client"
# The release that deploy/Dockerfile names: the stand-in for NVIDIA's image says that it has these.
TRT_VERSION, CUDA_VERSION = "11.2.1.2", "13.4.1"


def run(*command: str | Path, timeout: float = 600, **environment: str) -> str:
    """Output of a command that must succeed."""
    done = subprocess.run(
        list(map(str, command)),
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command[:6]))}: exit status {done.returncode}: {done.stdout[-2000:]}")
    return done.stdout


def docker(*arguments: str | Path, timeout: float = 600) -> str:
    """Output of a docker command that must succeed."""
    return run("docker", *arguments, timeout=timeout).strip()


@functools.cache
def lacking() -> str | None:
    """Why containers cannot be tested here; None if they can."""
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode
    ):
        return "a docker engine"
    if not compose_command():
        return "docker compose"
    images = [image for image in base_images() if not _is_here(image) and not _pull(image)]
    if images and (os.geteuid() != 0 or shutil.which("debootstrap") is None):
        return f"the image {images[0]}, which cannot be pulled here (as root with debootstrap, a stand-in is made)"
    return None


def compose_command() -> list[str]:
    """Docker's plugin, or the older program; empty if there is neither."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if (
            shutil.which(command[0])
            and not subprocess.run([*command, "version"], capture_output=True, check=False).returncode
        ):
            return command
    return []


def _argument(dockerfile: str, name: str) -> str:
    (value,) = re.findall(rf"^ARG {name}=(\S+)$", (DEPLOY / dockerfile).read_text(), re.MULTILINE)
    return value


def base_images() -> tuple[str, str]:
    """What the tests of the service are built on: Python's image and nginx's."""
    (nginx,) = re.findall(r"image: (nginx:\S+)", (DEPLOY / "compose.yaml").read_text())
    return f"python:{_argument('Dockerfile.cpu', 'PYTHON_TAG')}", nginx


def _succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=600, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _is_here(image: str) -> bool:
    return _succeeds("docker", "image", "inspect", image)


def _pull(image: str) -> bool:
    """Whether a registry has it for us."""
    return _succeeds("docker", "pull", "--quiet", image)


def provide(image: str) -> None:
    """A base image: the real one, or its stand-in."""
    if not _is_here(image):
        python, _ = base_images()
        run(BASE_IMAGE, image, PYTHON=python, TRT_VERSION=TRT_VERSION, CUDA_VERSION=CUDA_VERSION)


def build(dockerfile: str, tag: str, *options: str) -> None:
    """One of deploy's images. Built by the older builder: the newer one may not be installed."""
    command = ("docker", "build", "--quiet", "--network", "host", "-f", DEPLOY / dockerfile, "-t", tag, *options, ROOT)
    run(*command, DOCKER_BUILDKIT="0")


def triton_image() -> str:
    """NVIDIA's image that deploy/Dockerfile builds on."""
    return f"nvcr.io/nvidia/tritonserver:{_argument('Dockerfile', 'TRITON_TAG')}"


@dataclasses.dataclass
class Container:
    """A container, and what is asked inside of it with its own Python."""

    name: str

    def python(self, code: str) -> str:
        """Output of a Python program run inside."""
        return docker("exec", self.name, "python3", "-c", code)

    def inspect(self, field: str) -> str:
        """A field of docker inspect, as a Go template."""
        return docker("inspect", "--format", f"{{{{{field}}}}}", self.name)

    def log(self) -> list[str]:
        """What the container's process 1 has said."""
        return [line for line in docker("logs", self.name).splitlines() if line.startswith("nudenet: ")]

    def processes(self) -> dict[int, str]:
        """Command lines by process id."""
        code = "import json; from container.running_processes import command_lines; print(json.dumps(command_lines()))"
        return {int(pid): line for pid, line in json.loads(self.python(code)).items()}

    def process_id(self, what: str) -> int:
        """The first process of a model, or tritonserver."""
        sign = "bin/tritonserver " if what == "tritonserver" else f"/models/{what}/"
        return min(pid for pid, line in self.processes().items() if sign in line)

    def kill(self, what: str, number: int) -> None:
        """Send a signal to the first process of a model, or to tritonserver."""
        self.python(f"import os; os.kill({self.process_id(what)}, {int(number)})")

    def restarts(self) -> int:
        """How often the engine has started it anew."""
        return int(self.inspect(".RestartCount"))

    def up_seconds(self) -> float:
        """How long it has run since the engine last started it."""
        started = datetime.fromisoformat(self.inspect(".State.StartedAt").strip()[:19] + "+00:00")
        return (datetime.now(UTC) - started).total_seconds()

    def shared_memory(self) -> set[str]:
        """Names of the files in /dev/shm."""
        return set(self.python("import os; print(*os.listdir('/dev/shm'))").split())


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> float:
    """Seconds until `condition` holds; it may raise meanwhile."""
    begin = time.monotonic()
    while True:
        try:
            if condition():
                return time.monotonic() - begin
        except Exception:
            if time.monotonic() - begin > seconds:
                raise
        if time.monotonic() - begin > seconds:
            raise TimeoutError(f"not within {seconds:.0f} s")
        time.sleep(0.1)


class Service:
    """deploy/compose.yaml's cpu profile without its monitoring: server, canary, proxy, gateway. A context manager.

    /dev/shm of the server is a folder of this machine, which outlives the container as an emptyDir of Kubernetes does.

    Args:
        folder: for certificate, key and shared memory.
        certificate, key: of the proxy, for 127.0.0.1.
        port: of the proxy.
        http_port: of the proxy, for HTTP; None: without the gateway.
    """

    def __init__(self, folder: Path, certificate: Path, key: Path, port: int, http_port: int | None = None) -> None:
        self.services = ("triton-cpu", "canary-cpu", "proxy", *(["gateway"] if http_port else []))
        self.address = f"127.0.0.1:{port}"
        self.http_address = f"https://127.0.0.1:{http_port}"
        self.project = f"nudenet-test-{port}"
        for name, source in (("tls.crt", certificate), ("tls.key", key)):
            (folder / "tls").mkdir(exist_ok=True)
            shutil.copy(source, folder / "tls" / name)
            (folder / "tls" / name).chmod(0o644)  # nginx is user 101 there
        (folder / "keys").mkdir()
        (folder / "keys" / "clients.conf").write_text(f'"{API_KEY}" 1;\n')
        (folder / "gateway").mkdir()
        digest = hashlib.sha256(GATEWAY_KEY.encode()).hexdigest()
        (folder / "gateway" / "gateway.keys").write_text(f"{digest} test\n")
        (folder / "shm").mkdir()
        (folder / "shm").chmod(0o1777)
        for parent in (folder, folder / "tls", folder / "keys", folder / "gateway"):
            parent.chmod(0o755)
        override = folder / "override.yaml"
        override.write_text(
            "services:\n"
            f"  triton-cpu: {{ image: '{CPU}', volumes: ['{folder}/shm:/dev/shm'] }}\n"
            f"  canary-cpu: {{ image: '{CPU}' }}\n"
            f"  gateway: {{ image: '{GATEWAY}' }}\n"
        )
        self._command = [*compose_command(), "-p", self.project, "-f", DEPLOY / "compose.yaml", "-f", override]
        self._environment = {
            "TLS_FOLDER": str(folder / "tls"),
            "KEYS_FOLDER": str(folder / "keys"),
            "GRAFANA_PASSWORD": "unused",
            "PROXY_PORT": str(port),
            "PROXY_HTTP_PORT": str(http_port or 0),
            "GATEWAY_KEYS_FOLDER": str(folder / "gateway"),
        }

    def _compose(self, *arguments: str) -> str:
        return run(*self._command, "--profile", "cpu", "--profile", "gateway", *arguments, **self._environment)

    def __enter__(self) -> Service:
        self._compose("up", "--detach", "--no-build", *self.services)
        return self

    def __exit__(self, *_: object) -> None:
        self._compose("down", "--volumes", "--timeout", "5")

    def container(self, service: str) -> Container:
        """The container of one of `services`."""
        return Container(self._compose("ps", "-q", service).strip())
