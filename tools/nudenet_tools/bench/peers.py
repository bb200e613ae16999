"""What a user would run instead of the ensemble, measured on the same pictures and cores."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from container.repository import Tuning
from nudenet_steps.pipeline import ENGINE_FILES
from nudenet_tools import ROOT
from nudenet_tools.bench.ceiling import CeilingBench
from nudenet_tools.bench.clients import http_load, tensor_load
from nudenet_tools.bench.load import LoadBench
from nudenet_tools.bench.process import Child, Peer, PeerError, Sample, run_for, summarise, tree_cpu_seconds
from nudenet_tools.server.process import LOOPBACK, Options, Ports, Server
from nudenet_tools.server.tuning import cores

BATCH = 8
WORKERS = 2  # of uvicorn
WARMUP_SECONDS = 0.5


def detect_one(files: Sequence[bytes]) -> Callable[[float], Sample]:
    """``NudeDetector.detect`` in a loop, with onnxruntime's and OpenCV's own choice of threads; see `nude_detector`."""
    from nudenet_tools.bench.nude_detector import nude_detector

    detector = nude_detector()
    detector.detect(files[0])

    def call(done: int) -> int:
        detector.detect(files[done % len(files)])
        return 1

    return lambda seconds: run_for(seconds, call)


def detect_batch(files: Sequence[bytes]) -> Callable[[float], Sample]:
    """``NudeDetector.detect_batch`` of 8 in a loop."""
    from nudenet_tools.bench.nude_detector import nude_detector

    detector = nude_detector()
    detector.detect_batch(list(files), batch_size=BATCH)

    def call(done: int) -> int:
        detector.detect_batch([files[(done + i) % len(files)] for i in range(BATCH)], batch_size=BATCH)
        return BATCH

    return lambda seconds: run_for(seconds, call)


def onnx_runtime(files: Sequence[bytes]) -> Callable[[float], Sample]:
    """The ceiling's code with ONNX Runtime in OpenVINO's place: one session a core, batches of 8."""
    bench = CeilingBench(files, "FP32", cores(), BATCH, "onnxruntime")

    def measure(seconds: float) -> Sample:
        found = bench.measure(seconds)
        pictures = max(1, round(found.throughput * seconds))
        single = found.single_ms / 1e3
        return Sample(pictures, pictures / found.throughput, found.core_ms * pictures / 1e3, [single])

    return measure


class Service:
    """NudeDetector behind FastAPI and uvicorn; a context manager."""

    def __init__(self, workers: int = WORKERS) -> None:
        self.port = Ports.free().http
        command = [
            sys.executable,
            "-m",
            "uvicorn",
            "nudenet_tools.bench.fastapi_peer:app",
            "--app-dir",
            str(ROOT / "tools"),
        ]
        command += ["--host", LOOPBACK, "--port", str(self.port), "--workers", str(workers), "--log-level", "warning"]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def __enter__(self) -> Service:
        try:
            self._wait_ready(time.monotonic() + 60)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        """End uvicorn and its workers."""
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _wait_ready(self, deadline: float) -> None:
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise PeerError(f"uvicorn ended with status {self._process.returncode}")
            connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=5)
            try:
                connection.request("GET", "/openapi.json")
                if connection.getresponse().status == 200:
                    return
            except (OSError, http.client.HTTPException):
                time.sleep(0.1)
            finally:
                connection.close()
        raise PeerError("uvicorn is not ready in time")


IN_PROCESS = {
    "NudeDetector.detect": detect_one,
    "NudeDetector.detect_batch(8)": detect_batch,
    "our ONNX on ONNX Runtime": onnx_runtime,
}
FASTAPI = "NudeDetector behind FastAPI"
CLIENT_SIDE = "client-side preprocessing"
TEXTBOOK = "textbook ensemble"


class Textbook:
    """The ensemble of Triton's tutorials on a server of its own; a context manager.

    Args:
        files: JPEG files.
        decoders: instances of its preprocessing, as many as the ensemble beside it has.
    """

    def __init__(self, files: Sequence[bytes], decoders: int) -> None:
        self._stack = contextlib.ExitStack()
        try:
            models = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="nudenet-bench-"))) / "models"
            shutil.copytree(Path(__file__).with_name("textbook"), models)
            (models / "nudenet" / "1").mkdir(exist_ok=True)
            (models / "nudenet_trt" / "1" / "model.onnx").symlink_to(ENGINE_FILES / "model.onnx")
            tuned = Tuning(instances={"nudenet_preprocess": decoders})
            options = Options(ports=Ports.free(), config_name="", tuning=tuned, model_repository=models)
            self._load = LoadBench(self._stack.enter_context(Server(options)), files)
            self._stack.callback(self._load.close)
            self._load.closed(1)
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Textbook:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def measure(self, seconds: float, concurrency: int) -> Peer:
        """Figures of about `seconds` with `concurrency` requests in flight."""
        load = self._load.closed(concurrency, window_s=seconds)
        every, client = sum(load.core_ms.values()), load.core_ms["load generator"]
        return Peer(load.throughput, load.p50, load.p95, load.p99, every, client, load.failures, concurrency)


class PeersBench:
    """All peers, started once and measured one after the other as often as wanted; a context manager.

    Args:
        server: answers the UINT8 tensors of client-side preprocessing.
        files: JPEG files.
        concurrency: requests in flight at the service, at the textbook ensemble and at `nudenet_trt`.
        decoders: instances of the textbook's preprocessing.

    Raises:
        PeerError: a peer cannot start; also from `measure`.
    """

    def __init__(self, server: Server, files: Sequence[bytes], concurrency: int, decoders: int) -> None:
        self._server, self._concurrency = server, concurrency
        self._stack = contextlib.ExitStack()
        try:
            self._in_process = {name: self._child(build, files) for name, build in IN_PROCESS.items()}
            self._service = self._stack.enter_context(Service())
            self._http = self._child(http_load, LOOPBACK, self._service.port, files, concurrency)
            # A process a request in flight: Python threads would share one core.
            self._textbook = self._stack.enter_context(Textbook(files, decoders))
            self._tensor = [self._child(tensor_load, server.grpc_url, files, i) for i in range(concurrency)]
            for child in (*self._in_process.values(), self._http, *self._tensor):
                child.wait_ready()
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> PeersBench:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def measure(self, seconds: float) -> dict[str, Peer]:
        """Figures by peer's name, `seconds` each."""
        assert self._server.process is not None
        found = {name: _measure([child], seconds) for name, child in self._in_process.items()}
        service = _measure([self._http], seconds, self._service.pid)
        found[FASTAPI] = replace(service, concurrency=self._concurrency)
        client_side = _measure(self._tensor, seconds, self._server.process.pid)
        found[TEXTBOOK] = self._textbook.measure(seconds, self._concurrency)
        found[CLIENT_SIDE] = replace(client_side, concurrency=self._concurrency)
        return found

    def _child(self, build: Callable[..., Callable[[float], Sample]], *arguments: object) -> Child:
        child = Child(build, *arguments)
        self._stack.callback(child.close)
        return child


def _measure(children: Sequence[Child], seconds: float, server_pid: int | None = None) -> Peer:
    """Warm up, then measure all children at once."""
    for period in (min(WARMUP_SECONDS, seconds), seconds):
        cpu = tree_cpu_seconds(server_pid) if server_pid else 0.0
        for child in children:
            child.begin(period)
        samples = [child.result(period) for child in children]
    return summarise(samples, tree_cpu_seconds(server_pid) - cpu if server_pid else None)
