"""Start, watch and stop one real ``tritonserver`` on this machine. Used by serve, demo, bench and the tests."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from container import canary_exporter
from nudenet_steps.serving import shm_files
from nudenet_tools.server import libpython, repository, running_processes, security
from nudenet_tools.server.security import LOOPBACK

SHM = Path("/dev/shm")
# A Python instance starts with 1 MB of shared memory and grows to about two full batches in and out.
SHM_PER_INSTANCE = 32 << 20
READY_SECONDS = 60.0
# Tensors of 0.7 MB come and go with every picture: without this, glibc maps and unmaps fresh pages for each.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(128 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(512 << 20),
    "MALLOC_TOP_PAD_": str(16 << 20),
}
STOP_SECONDS = 15.0

# What Triton prints, and what it means for the person at the terminal.
_EXPLANATIONS = (
    ("Version tag does not match", "model.plan was built by another TensorRT; rebuild it for this server: make plan"),
    ("unable to load plan file", "model.plan was built by another TensorRT; rebuild it for this server: make plan"),
    ("backend library 'tensorrt' not found", "this tritonserver has no TensorRT backend; use --config-name cpu"),
    (
        "unable to find backend library for backend 'tensorrt'",
        "this tritonserver has no TensorRT backend; use --config-name cpu",
    ),
    ("No space left on device", "/dev/shm is full; in a container raise it with --shm-size=1g"),
)

# Printed on every machine without a GPU, where they mean nothing.
NO_GPU_NOISE = (
    "CUDA driver version is insufficient",
    "CudaDriverHelper has not been initialized",
    "Failed to initialize NVML",
    "DCGM unable to start",
)


class ServerError(RuntimeError):
    """The server cannot start or has died; the message says what to do."""


@dataclass(frozen=True)
class Ports:
    """TCP ports on the loopback interface."""

    http: int = 8000
    grpc: int = 8001
    metrics: int = 8002

    @staticmethod
    def free() -> Ports:
        """Three ports that nobody listens on right now."""
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
            for probe in sockets:
                probe.bind((LOOPBACK, 0))
            return Ports(*(probe.getsockname()[1] for probe in sockets))


@dataclass(frozen=True)
class Options:
    """How to run one server."""

    ports: Ports = field(default_factory=Ports)
    config_name: str = "cpu"
    tuning: repository.Tuning = field(default_factory=repository.Tuning)
    model_repository: Path = repository.MODEL_REPOSITORY
    admin_key: str = field(default_factory=security.new_key, repr=False)  # opens the closed interfaces
    exposure: security.Exposure | None = None  # None: loopback only
    arguments: tuple[str, ...] = ()  # passed to tritonserver as they are
    ready_seconds: float = READY_SECONDS
    on_log: Callable[[str], None] | None = None  # called with every line the server prints


@dataclass(frozen=True)
class Installation:
    """A tritonserver on this machine."""

    binary: Path
    backends: Path
    libraries: tuple[Path, ...]
    stub: Path | None  # where the Python stub is kept apart from its backend, as in the PyPI package

    @property
    def has_tensorrt(self) -> bool:
        return (self.backends / "tensorrt").is_dir()


def find_installation() -> Installation:
    """NVIDIA's container layout if it is there, else the PyPI package nvidia-pytriton.

    Raises:
        ServerError: neither is installed, or the package has no stub for this Python.
    """
    container = Path("/opt/tritonserver")
    if (container / "bin" / "tritonserver").is_file():
        return Installation(container / "bin" / "tritonserver", container / "backends", (container / "lib",), None)
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        raise ServerError("no tritonserver found: run make setup (it installs nvidia-pytriton)")
    package = Path(next(iter(spec.submodule_search_locations)))
    server = package / "tritonserver"
    version = "{}.{}".format(*sys.version_info[:2])
    stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        raise ServerError(f"nvidia-pytriton has no Python backend for Python {version}: use 3.10, 3.11 or 3.12")
    return Installation(
        server / "bin" / "tritonserver", server / "backends", (package.parent / "nvidia_pytriton.libs",), stub
    )


def _check_ports(ports: Ports) -> None:
    for name, port in (("HTTP_PORT", ports.http), ("GRPC_PORT", ports.grpc), ("METRICS_PORT", ports.metrics)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError as error:
                raise ServerError(f"port {port} cannot be used ({error.strerror}): set {name} to a free one") from error


def _in_the_child() -> None:
    """Before tritonserver takes over: its scheduling, and a signal when the process that started it is gone."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    # Batch: a thread that wakes does not push the one that woke it off its core. Triton's batcher, woken just before
    # an instance becomes free, would look too early and then sleep for half a second while its queue is full.
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


class Server:
    """A running tritonserver; a context manager.

    Raises:
        ServerError: from `start`, with what is wrong and what to do.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.ports = options.ports
        self.process: subprocess.Popen | None = None
        self.log: deque[str] = deque(maxlen=2000)
        self.seconds_to_ready = 0.0
        self._scratch: Path | None = None
        self._reader: threading.Thread | None = None

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def grpc_url(self) -> str:
        return f"{LOOPBACK}:{self.ports.grpc}"

    @property
    def http_url(self) -> str:
        return f"{LOOPBACK}:{self.ports.http}"

    @property
    def metrics_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports.metrics}/metrics"

    def start(self) -> None:
        """Start the server and wait until every model is ready, at most ``options.ready_seconds``."""
        _check_ports(self.ports)
        installation = find_installation()
        begin = time.monotonic()
        self._scratch = Path(tempfile.mkdtemp(prefix="nudenet-triton-"))
        try:
            repository.write_effective(
                self._scratch / "models", self.options.config_name, self.options.tuning, self.options.model_repository
            )
            self._check_shared_memory()
            self.process = subprocess.Popen(
                self._command(installation),
                env=self._environment(installation),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # one process group: stubs are stopped with their server
                preexec_fn=_in_the_child,
            )
            self._reader = threading.Thread(target=self._read_log, args=(self.process,), daemon=True)
            self._reader.start()
            self._wait_ready(begin + self.options.ready_seconds)
        except BaseException:
            self.stop()
            raise
        self.seconds_to_ready = time.monotonic() - begin

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """End the server and its stubs; remove its scratch files and shared memory. Safe to call twice."""
        process = self.process
        if process is not None:
            if process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if self._reader is not None:
                self._reader.join(5)
            for left in (*SHM.glob(f"{self.region_prefix}*"), *shm_files.files(process.pid)):
                left.unlink(missing_ok=True)
            self.process = None
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None

    def is_ready(self) -> bool:
        """Whether Triton answers that it and all its models are ready."""
        return canary_exporter.is_ready(self.http_url, timeout=2)

    def engine(self) -> str:
        """What runs the detector, for people: ``OpenVINO 2026.4.1, BF16`` or ``TensorRT plan``."""
        marker = "nudenet_trt: "
        said = [line.split(marker, 1)[1] for line in list(self.log) if marker in line and line.startswith("I")]
        return said[-1].strip('"') if said else "TensorRT plan"

    def shared_memory_bytes(self) -> int:
        """What this server's regions take in /dev/shm."""
        return sum(region.stat().st_blocks * 512 for region in SHM.glob(f"{self.region_prefix}*"))

    def stubs(self) -> list[tuple[str, int]]:
        """The Python stubs: model and process id of each."""
        assert self.process is not None
        running = running_processes.command_lines(session=self.process.pid)
        stub = re.compile(r"triton_python_backend_stub.*?/models/([^/]+)/")
        return [(match[1], pid) for pid, line in running.items() if (match := stub.search(line))]

    def stub_pids(self, model: str) -> list[int]:
        """Process ids of the Python stubs that run `model`."""
        return [pid for name, pid in self.stubs() if name == model]

    @property
    def region_prefix(self) -> str:
        """What the names of this run's shared memory regions begin with."""
        assert self._scratch is not None
        return self._scratch.name

    def _check_shared_memory(self) -> None:
        assert self._scratch is not None
        configs = repository.effective_configs(self._scratch / "models").values()
        instances = sum(repository.instances(config) for config in configs if config.backend == "python")
        state = os.statvfs(SHM)
        free, needed = state.f_bavail * state.f_frsize, instances * SHM_PER_INSTANCE
        if free < needed:
            raise ServerError(
                f"/dev/shm has {free >> 20} MB free, {instances} Python instances need {needed >> 20} MB: "
                "raise it (docker run --shm-size=1g; mount -o remount,size=1g /dev/shm) or run fewer instances"
            )

    def _command(self, installation: Installation) -> list[str]:
        assert self._scratch is not None
        backends = installation.backends
        if installation.stub is not None:
            # The Python backend looks for its stub beside itself; the package keeps one per Python version.
            backends = self._scratch / "backends"
            (backends / "python").mkdir(parents=True)
            for file in (*(installation.backends / "python").iterdir(), installation.stub):
                (backends / "python" / file.name).symlink_to(file)
        return [
            str(installation.binary),
            f"--model-repository={self._scratch / 'models'}",
            f"--backend-directory={backends}",
            f"--http-port={self.ports.http}",
            f"--grpc-port={self.ports.grpc}",
            f"--metrics-port={self.ports.metrics}",
            "--metrics-config=summary_latencies=true",
            "--disable-auto-complete-config",  # the configs are complete; completing costs a stub start per model
            f"--backend-config=python,shm-region-prefix-name={self.region_prefix}",
            *repository.server_arguments(self._scratch / "models"),
            *security.arguments(self.options.admin_key, self.options.exposure),
            *self.options.arguments,
        ]

    @staticmethod
    def _environment(installation: Installation) -> dict[str, str]:
        environment = MALLOC | dict(os.environ)
        libraries = [str(path) for path in installation.libraries]
        if installation.stub is not None:
            found = libpython.directory()
            if found is None:
                version = "{}.{}".format(*sys.version_info[:2])
                raise ServerError(
                    f"{libpython.name()} is missing, Triton's Python backend needs it: "
                    f"install libpython{version} (Debian, Ubuntu: apt-get install libpython{version})"
                )
            libraries += [found] if found else []
            # The stub is isolated from PYTHONPATH: it finds its packages by the first python3 on PATH.
            environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
        if environment.get("LD_LIBRARY_PATH"):
            libraries.append(environment["LD_LIBRARY_PATH"])
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)
        return environment

    def _read_log(self, process: subprocess.Popen) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.log.append(line.rstrip("\n"))
            if self.options.on_log is not None:
                self.options.on_log(self.log[-1])

    def _wait_ready(self, deadline: float) -> None:
        assert self.process is not None and self._reader is not None
        while not self.is_ready():
            if self.process.poll() is not None:
                self._reader.join(5)
                raise ServerError(f"tritonserver ended with status {self.process.returncode}: {self._diagnosis()}")
            if time.monotonic() > deadline:
                raise ServerError(f"tritonserver is not ready in time: {self._diagnosis()}")
            time.sleep(0.05)

    def _diagnosis(self) -> str:
        lines = list(self.log)
        for sign, meaning in _EXPLANATIONS:
            if any(sign in line for line in lines):
                return meaning
        errors = [
            line for line in lines if line.startswith(("E", "error:")) and not any(n in line for n in NO_GPU_NOISE)
        ]
        return "\n" + "\n".join(errors[-12:] or lines[:5])


def get_json(server: Server, path: str) -> dict:
    """GET one of the server's JSON endpoints, e.g. ``/v2/models/nudenet/config``."""
    connection = http.client.HTTPConnection(LOOPBACK, server.ports.http, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = json.loads(response.read() or b"{}")
    finally:
        connection.close()
    if response.status != 200:
        raise ServerError(f"GET {path}: {response.status} {body.get('error', '')}")
    return body
