#!/usr/bin/env python3
"""Process 1 of the images: starts tritonserver, watches it, and ends when it fails: the container is started anew.

    MODEL_REPOSITORY    what is served (default: the repository of the image)
    MODEL_CONFIG_NAME   which configs/NAME.pbtxt; empty: config.pbtxt, a TensorRT plan
    ADMIN_KEY           opens administration; without it, nobody can: the key is random

Further arguments go to tritonserver. Docker restarts no container that is merely unhealthy, hence the watching.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from pathlib import Path

from container import check_plan, instances, limits, repository, security, shared_memory
from container.process import Options, Ports, Server, ServerError
from container.server_log import NO_GPU_NOISE
from container.supervisor import Supervisor, Watch

ADDRESS = "0.0.0.0"  # a container's own network; what is published of it is the proxy
READY_SECONDS = 180.0  # a plan in three instances with their CUDA graphs takes a minute
REAP_SECONDS = 5.0


def say(line: str) -> None:
    """One line for the container's log."""
    print(f"nudenet: {line}", flush=True)


def _relay(line: str) -> None:
    if not any(noise in line for noise in NO_GPU_NOISE):
        print(line, flush=True)


def options(arguments: list[str], environment: dict[str, str]) -> Options:
    """How to run the server, from the container's arguments and environment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--http-port", type=int, default=8000)
    parser.add_argument("--grpc-port", type=int, default=8001)
    parser.add_argument("--metrics-port", type=int, default=8002)
    own, others = parser.parse_known_args(arguments)
    config_name = environment.get("MODEL_CONFIG_NAME", "")
    return Options(
        ports=Ports(own.http_port, own.grpc_port, own.metrics_port),
        config_name=config_name,
        tuning=instances.for_image(config_name),
        model_repository=Path(environment.get("MODEL_REPOSITORY") or repository.MODEL_REPOSITORY),
        admin_key=environment.get("ADMIN_KEY") or security.new_key(),
        exposure=security.Exposure(ADDRESS, private=True),
        arguments=("--strict-readiness=true", "--exit-on-error=true", "--exit-timeout-secs=30", *others),
        ready_seconds=READY_SECONDS,
        stop_seconds=40,
        on_log=_relay,
    )


def _introduce(server: Server) -> None:
    needed, size = limits.shared_memory(server.configs()), shared_memory.total_bytes()
    if size < needed:
        say(
            f"/dev/shm has {size >> 20} MB; requests of the largest size in all instances at once would take "
            f"{needed >> 20} MB: raise it, or such requests fail"
        )
    say(f"ready after {server.seconds_to_ready:.1f} s: {server.engine_and_reason()}; watching")


def _collect_orphans(server: Server, stopped: threading.Event) -> None:
    """Process 1 inherits what others started and left; without this they stay as zombies."""
    while not stopped.wait(REAP_SECONDS):
        with contextlib.suppress(ChildProcessError):
            while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if server.process is not None and found.si_pid == server.process.pid:
                    break  # the supervisor's own
                os.waitpid(found.si_pid, os.WNOHANG)


def main() -> int:
    """Serve until told to stop. Exit status 0: told to; 1: the server could not start, or failed."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        freed = shared_memory.remove_leftovers()
        if freed:
            say(f"removed {freed >> 20} MB that an earlier run left in /dev/shm")
        how = options(sys.argv[1:], dict(os.environ))
        check_plan.check_repository(how.model_repository, how.config_name)
        server = Server(how)
        threading.Thread(target=_collect_orphans, args=(server, stopped), daemon=True).start()
        failure = Supervisor(server, say, Watch()).run_once(stopped, _introduce)
    except (ServerError, repository.ConfigError, check_plan.PlanError) as error:
        say(str(error))
        return 1
    if failure is not None:
        say(f"ending, to be started again: {failure}")
        return 1
    say("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
