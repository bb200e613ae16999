"""The compose service under kills, hangs and oversized requests: how soon it answers again, and what is left over."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import re
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Annotated

import numpy as np
import tritonclient.grpc as grpcclient
import typer
from tritonclient.utils import InferenceServerException

from chaos.faults import FAULTS
from chaos.fuzz import ASTRONAUT
from container import limits
from helpers import containers
from helpers.containers import Container, Service, wait_until
from helpers.ports import free_ports
from helpers.tls_files import Authority
from nudenet_client import Client, Tls

PICTURE = ASTRONAUT.read_bytes()
# Docker doubles its wait before a restart while containers end within ten seconds of their start; every fault here
# stands for the first one after a long time.
NO_BACK_OFF_SECONDS = 12
Row = tuple[str, str]


def ask(service: Service, tls: Tls) -> bool:
    """Whether the proxy's client gets the right answer now."""
    with Client(service.address, tls=tls, api_key=containers.API_KEY, retries=0, deadline=5) as client:
        return client.detect(PICTURE).labels == ("FACE_FEMALE",)


@contextlib.contextmanager
def serving() -> Iterator[tuple[Service, Tls]]:
    """The service, answering; images are built where they are missing."""
    for image in containers.base_images():
        containers.provide(image)
    containers.build("Dockerfile.cpu", containers.CPU)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        authority = Authority(Path(folder), "authority")
        tls = Tls(root_certificates=authority.certificate)
        with Service(Path(folder), *authority.issue("proxy"), *free_ports(1)) as service:
            wait_until(functools.partial(ask, service, tls))
            yield service, tls


def recovery(service: Service, tls: Tls, triton: Container, what: str, number: int) -> float:
    """Seconds from a signal to five good answers in a row."""
    before = triton.restarts()
    begin = time.monotonic()
    triton.kill(what, number)
    wait_until(lambda: triton.restarts() > before)
    good = 0
    while good < 5:
        try:
            good = good + 1 if ask(service, tls) else 0
        except Exception:
            good = 0
            time.sleep(0.1)
        if time.monotonic() - begin > 120:
            raise TimeoutError(f"no answer 120 s after {what} got signal {number}")
    return time.monotonic() - begin


def kills(service: Service, tls: Tls, rounds: int) -> list[Row]:
    """Each kind of fault `rounds` times."""
    triton = service.container("triton-cpu")
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for what, number in FAULTS:
            wait_until(lambda: triton.up_seconds() > NO_BACK_OFF_SECONDS)
            seconds[f"{what}, {number.name}"].append(recovery(service, tls, triton, what, number))
    rows = [
        (name, f"{len(s)} times, answers again after {min(s):.1f} to {max(s):.1f} s") for name, s in seconds.items()
    ]
    return [*rows, ("left in /dev/shm", ", ".join(left_over(triton)) or "nothing")]


def left_over(triton: Container) -> list[str]:
    """Files in /dev/shm that are not the present server's."""
    server = triton.process_id("tritonserver")
    (prefix,) = re.findall(r"shm-region-prefix-name=(\S+)", triton.processes()[server])
    started = triton.python(f"from container.healthcheck import process_state; print(process_state({server})[1])")
    steps = re.compile(rf"nudenet_\w+?_{server}_{started}_")
    return sorted(name for name in triton.shared_memory() if not name.startswith(prefix) and not steps.match(name))


class QuietClient:
    """Sends a picture every 50 ms from a thread; `longest` is its longest answer since the last reading."""

    def __init__(self, service: Service, tls: Tls) -> None:
        self._client = Client(service.address, tls=tls, api_key=containers.API_KEY, retries=0, deadline=60)
        self._stopped, self._longest, self.failed = threading.Event(), 0.0, 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(0.05):
            begin = time.monotonic()
            try:
                self._client.detect(PICTURE)
            except Exception:
                self.failed += 1
            self._longest = max(self._longest, time.monotonic() - begin)

    def longest(self) -> float:
        seconds, self._longest = self._longest, 0.0
        return seconds

    def close(self) -> None:
        self._stopped.set()
        self._thread.join()
        self._client.close()


def send_oversized(address: str, authority: str, picture_bytes: int, parameter_bytes: int) -> tuple[str, float]:
    """What the proxy answers to one oversized request, and after how many seconds."""
    image = grpcclient.InferInput("image", [1, 1], "BYTES")
    image.set_data_from_numpy(np.array([[bytes(picture_bytes) if picture_bytes else PICTURE]], np.object_))
    parameters = {"classes": "x" * parameter_bytes} if parameter_bytes else None
    with grpcclient.InferenceServerClient(address, ssl=True, root_certificates=authority) as client:
        begin = time.monotonic()
        try:
            client.infer(
                "nudenet",
                [image],
                headers={"api-key": containers.API_KEY},
                parameters=parameters,
                client_timeout=120,
            )
            answer = "answered"
        except InferenceServerException as error:
            answer = f"{str(error.status()).removeprefix('StatusCode.')}: {error.message()[:60]}"
        return answer, time.monotonic() - begin


def oversized(service: Service, tls: Tls) -> Iterator[Row]:
    """What the proxy must refuse, beside a quiet client."""
    triton, quiet = service.container("triton-cpu"), QuietClient(service, tls)
    time.sleep(10)
    yield "control: quiet client's longest answer in 10 s", f"{quiet.longest():.2f} s"
    half = limits.MESSAGE_BYTES // 2
    # In a process of its own: making such a request would hold up the quiet client in this one.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(time.monotonic).result()  # has started
        for name, picture_bytes, parameter_bytes in (
            ("picture of 900 MB", 900 << 20, 0),
            ("parameters of 400 MB", 0, 400 << 20),
            (f"parameters of {half >> 20} MB, which pass the proxy", 0, half),
        ):
            quiet.longest()
            task = pool.submit(
                send_oversized, service.address, str(tls.root_certificates), picture_bytes, parameter_bytes
            )
            answer, seconds = task.result()
            yield name, f"{answer}, after {seconds:.1f} s; quiet client's longest {quiet.longest():.2f} s"
    quiet.close()
    code = "import os; print(sum(os.stat('/dev/shm/' + f).st_blocks for f in os.listdir('/dev/shm')) * 512 >> 20)"
    yield "quiet requests that failed", str(quiet.failed)
    yield "/dev/shm afterwards", f"{triton.python(code)} MB"


def rows(rounds: int) -> Iterator[Row]:
    """All of it, as it is found; one row says what is missing where there is no docker engine."""
    if missing := containers.lacking():
        yield "not run", f"needs {missing}"
        return
    with serving() as (service, tls):
        yield from oversized(service, tls)
        yield from kills(service, tls, rounds)


def main(rounds: Annotated[int, typer.Option(help="How often each kind of fault.")] = 10) -> None:
    """Kills, hangs and oversized requests against the compose service."""
    for name, value in rows(rounds):
        print(f"{name}: {value}", flush=True)


if __name__ == "__main__":
    typer.run(main)
