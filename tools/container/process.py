"""Start, watch and stop one ``tritonserver``: the same code for process 1 of a container and for `make serve`."""

from __future__ import annotations

import contextlib
import ctypes
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
from typing import TypeVar

from container import canary_exporter, limits, repository, running_processes, security, server_log, shared_memory
from container.security import LOOPBACK

READY_SECONDS = 60.0
# Tensors of 0.2 (UINT8) to 0.7 MB (FP32) come and go with every picture: without this, glibc maps fresh pages for each.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(128 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(512 << 20),
    "MALLOC_TOP_PAD_": str(16 << 20),
}
NO_TELEMETRY = {"ORT_DISABLE_TELEMETRY": "1"}  # as nudenet_steps says; here for other models of the repository, too
STOP_SECONDS = 15.0


class ServerError(RuntimeError):
    """The server cannot start or has died; the message says what to do."""


@dataclass(frozen=True)
class Ports:
    """TCP ports of a server."""

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
    stand_in: str = ""  # an engine in place of the plan, for a rehearsal of its configuration; "": none
    admin_key: str = field(default_factory=security.new_key, repr=False)  # opens the closed interfaces
    exposure: security.Exposure | None = None  # None: loopback only
    arguments: tuple[str, ...] = ()  # passed to tritonserver as they are
    ready_seconds: float = READY_SECONDS
    stop_seconds: float = STOP_SECONDS  # how long requests under way may take at the end
    on_log: Callable[[str], None] | None = None  # called with every line the server prints


@dataclass(frozen=True)
class Installation:
    """A tritonserver on this machine."""

    binary: Path
    backends: Path
    libraries: tuple[Path, ...]
    stub: Path | None = None  # where the Python stub is kept apart from its backend, as in the PyPI package

    @property
    def has_tensorrt(self) -> bool:
        return (self.backends / "tensorrt").is_dir()


def find_installation() -> Installation:
    """The server of an image.

    Raises:
        ServerError: there is none.
    """
    folder = Path("/opt/tritonserver")
    if not (folder / "bin" / "tritonserver").is_file():
        raise ServerError(f"no tritonserver in {folder}")
    return Installation(folder / "bin" / "tritonserver", folder / "backends", (folder / "lib",))


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


S = TypeVar("S", bound="Server")


class Server:
    """A running tritonserver; a context manager.

    Raises:
        ServerError: from `start`, with what is wrong and what to do.
    """

    find_installation = staticmethod(find_installation)

    def __init__(self, options: Options) -> None:
        self.options = options
        self.ports = options.ports
        self.process: subprocess.Popen | None = None
        self.log: deque[str] = deque(maxlen=2000)
        self.seconds_to_ready = 0.0
        self._scratch: Path | None = None
        self._region: shared_memory.Region | None = None
        self._reader: threading.Thread | None = None

    def __enter__(self: S) -> S:
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

    def start(self, stopped: threading.Event | None = None) -> bool:
        """Start the server and wait until every model is ready, at most ``options.ready_seconds``.

        Args:
            stopped: when it is set meanwhile, the server is ended again.

        Returns:
            whether it is ready; False where it was told to stop.

        Raises:
            ServerError: it cannot start, see its message.
        """
        _check_ports(self.ports)
        installation = self.find_installation()
        begin, stand_in = time.monotonic(), self.options.stand_in
        shared_memory.remove_leftovers()
        self._scratch = Path(tempfile.mkdtemp(prefix=shared_memory.PREFIX))
        self._region = shared_memory.Region()
        try:
            repository.write_effective(
                self._scratch / "models",
                self.options.config_name,
                self.options.tuning,
                self.options.model_repository,
                rehearsal=bool(stand_in),
            )
            self._check_shared_memory()
            self.process = subprocess.Popen(
                self._command(installation),
                env=self._environment(installation) | ({"NUDENET_STAND_IN": stand_in} if stand_in else {}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # one process group: stubs are stopped with their server
                preexec_fn=_in_the_child,
                pass_fds=(self._region.lock,),
            )
            self._reader = threading.Thread(target=self._read_log, args=(self.process,), daemon=True)
            self._reader.start()
            ready = self._wait_ready(begin + self.options.ready_seconds, stopped or threading.Event())
        except BaseException:
            self.stop()
            raise
        if not ready:
            self.stop(timeout=1)  # nobody waits for an answer yet
        self.seconds_to_ready = time.monotonic() - begin
        return ready

    def stop(self, timeout: float | None = None) -> None:
        """End the server and its stubs; remove its scratch files and shared memory. Safe to call twice.

        Args:
            timeout: seconds for requests under way; by default the options'.
        """
        process = self.process
        if process is not None:
            if process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(self.options.stop_seconds if timeout is None else timeout)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if self._reader is not None:
                self._reader.join(5)
            self.process = None
        if self._region is not None:
            self._region.remove()
            self._region = None
            shared_memory.remove_leftovers()  # of its Python processes
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None

    def is_ready(self) -> bool:
        """Whether Triton answers that it and all its models are ready."""
        return canary_exporter.is_ready(self.http_url, timeout=2)

    def configs(self) -> dict[str, repository.ModelConfig]:
        """The configurations that are served, by model name."""
        assert self._scratch is not None
        return repository.effective_configs(self._scratch / "models")

    def engine(self) -> str:
        """What runs the detector, for people: ``OpenVINO 2026.4.1, BF16`` or ``TensorRT plan``."""
        return self.engine_and_reason().split("; ", 1)[0]

    def engine_and_reason(self) -> str:
        """The same, with why its precision was chosen where that was left to it."""
        marker = "nudenet_trt: "
        said = [line.split(marker, 1)[1] for line in list(self.log) if marker in line and line.startswith("I")]
        return said[-1].strip('"') if said else "TensorRT plan"

    def shared_memory_bytes(self) -> int:
        """What this server's regions take in /dev/shm."""
        return self._region.bytes() if self._region is not None else 0

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
        assert self._region is not None
        return self._region.prefix

    def _check_shared_memory(self) -> None:
        needed = limits.ordinary_shared_memory(self.configs())
        free = shared_memory.free_bytes()
        if free < needed:
            raise ServerError(
                f"/dev/shm has {free >> 20} MB free, the Python instances need {needed >> 20} MB: "
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
        environment = MALLOC | NO_TELEMETRY | dict(os.environ)
        libraries = [str(path) for path in installation.libraries]
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

    def _wait_ready(self, deadline: float, stopped: threading.Event) -> bool:
        assert self.process is not None and self._reader is not None
        while not self.is_ready():
            if self.process.poll() is not None:
                self._reader.join(5)
                raise ServerError(f"tritonserver ended with status {self.process.returncode}: {self._diagnosis()}")
            if time.monotonic() > deadline:
                raise ServerError(f"tritonserver is not ready in time: {self._diagnosis()}")
            if stopped.wait(0.05):
                return False
        return True

    def _diagnosis(self) -> str:
        return server_log.diagnosis(list(self.log))
