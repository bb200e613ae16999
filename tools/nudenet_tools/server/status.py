"""What a running server says about itself: health, configuration, statistics extension and /metrics, as data."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

TIMEOUT = 5.0  # seconds for each of the server's answers
_SAMPLE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

Metrics: TypeAlias = dict[str, list[tuple[dict[str, str], float]]]  # name -> (labels, value) of each sample


class StatusError(RuntimeError):
    """The server cannot be asked, or does not answer as Triton does; the message names the address."""


@dataclass(frozen=True)
class Counters:
    """One model's totals since it was loaded, or the difference of two such readings. Times are nanoseconds."""

    requests: int = 0  # answered
    failures: int = 0
    pictures: int = 0
    executions: int = 0
    total: int = 0
    queue: int = 0
    input: int = 0
    infer: int = 0
    output: int = 0

    def __sub__(self, earlier: Counters) -> Counters:
        mine, before = asdict(self), asdict(earlier)
        return Counters(**{name: mine[name] - before[name] for name in mine})

    @property
    def mean_batch(self) -> float:
        """Pictures an execution; 0 before the first."""
        return self.pictures / self.executions if self.executions else 0.0

    def milliseconds(self, name: str) -> float:
        """Mean time an answered request spent in `name`: total, queue, input, infer or output."""
        return getattr(self, name) / self.requests / 1e6 if self.requests else 0.0


@dataclass(frozen=True)
class Model:
    """One model of the repository."""

    name: str
    version: str
    state: str  # READY, LOADING, UNAVAILABLE ...
    reason: str = ""  # why it is not ready
    backend: str = ""  # what executes it: python, tensorrt, ensemble
    instances: str = ""  # e.g. "2 x CPU"; an ensemble has none
    counters: Counters = field(default_factory=Counters)
    last_inference: int = 0  # milliseconds since 1970; 0: none yet
    pending: int | None = None  # requests waiting; None: unknown
    failures: Mapping[str, int] = field(default_factory=dict)  # Triton's reason -> requests, from /metrics


@dataclass(frozen=True)
class Status:
    """One look at the server."""

    url: str
    version: str
    live: bool
    ready: bool
    engine: str
    models: tuple[Model, ...]
    refused: Mapping[str, int] = field(default_factory=dict)  # our reason -> pictures, from /metrics
    verdicts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # policy -> verdict -> pictures
    gpus: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # UUID -> utilization [0,1], memory bytes
    packages: tuple[str, ...] = ()  # hashes of the step package that the processes run; more than one: restart
    metrics_error: str | None = None  # why /metrics said nothing

    def to_dict(self) -> dict[str, Any]:
        """For JSON: with the derived numbers, times in milliseconds a request."""
        result = asdict(self)
        for entry, model in zip(result["models"], self.models, strict=True):
            counters = model.counters
            entry["counters"] = {
                name: getattr(counters, name) for name in ("requests", "failures", "pictures", "executions")
            }
            entry["mean_batch"] = counters.mean_batch
            entry["milliseconds"] = {
                name: counters.milliseconds(name) for name in ("total", "queue", "input", "infer", "output")
            }
        return result


def read_status(url: str, metrics_url: str | None = None) -> Status:
    """Ask the server at `url` (HOST:PORT of HTTP) and its metrics port (HOST:PORT); None leaves the metrics out.

    Raises:
        StatusError: nobody answers at `url`, or it is no Triton. Missing metrics are no error but `metrics_error`.
    """
    server = _json(url, "GET", "/v2")
    if "version" not in server:
        raise StatusError(f"{url}: no Triton server there: /v2 has no version")
    live, ready = (_request(url, "GET", f"/v2/health/{kind}")[0] == 200 for kind in ("live", "ready"))
    metrics: Metrics = {}
    problem: str | None = None
    try:
        metrics = read_metrics(metrics_url) if metrics_url else {}
    except StatusError as error:
        problem = str(error)
    statistics = read_statistics(url)
    models, engine = [], "unknown: nudenet_trt is not loaded"
    for entry in _json(url, "POST", "/v2/repository/index"):
        name, version, state = entry["name"], entry.get("version", ""), entry.get("state", "UNAVAILABLE")
        config = _json(url, "GET", f"/v2/models/{name}/config") if state == "READY" else {}
        counters, last = statistics.get(name, (Counters(), 0))
        models.append(
            Model(
                name,
                version,
                state,
                entry.get("reason", ""),
                "ensemble" if config.get("platform") == "ensemble" else config.get("backend", ""),
                _instances(config),
                counters,
                last,
                _pending(metrics, name),
                _by_label(metrics, "nv_inference_request_failure", "reason", model=name),
            )
        )
        if name == "nudenet_trt" and config:
            engine = _engine(config)
    return Status(
        url,
        server["version"],
        live,
        ready,
        engine,
        tuple(models),
        _by_label(metrics, "nudenet_rejected_total", "reason"),
        {
            policy: _by_label(metrics, "nudenet_verdicts_total", "verdict", policy=policy)
            for policy in _by_label(metrics, "nudenet_verdicts_total", "policy")
        },
        _gpus(metrics),
        tuple(_by_label(metrics, "nudenet_package_info", "sha256")),
        problem,
    )


def read_statistics(url: str) -> dict[str, tuple[Counters, int]]:
    """Counters and last inference (milliseconds since 1970) of every loaded model, from the statistics extension.

    Raises:
        StatusError: no answer.
    """
    result = {}
    for entry in _json(url, "GET", "/v2/models/stats")["model_stats"]:
        times = entry["inference_stats"]
        counters = Counters(
            requests=times["success"]["count"],
            failures=times["fail"]["count"],
            pictures=entry["inference_count"],
            executions=entry["execution_count"],
            total=times["success"]["ns"],
            queue=times["queue"]["ns"],
            input=times["compute_input"]["ns"],
            infer=times["compute_infer"]["ns"],
            output=times["compute_output"]["ns"],
        )
        result[entry["name"]] = (counters, entry["last_inference"])
    return result


def read_metrics(url: str) -> Metrics:
    """All samples by name, each with its labels, from ``/metrics`` at `url` (HOST:PORT).

    Raises:
        StatusError: no answer.
    """
    status, body = _request(url, "GET", "/metrics")
    if status != 200:
        raise StatusError(f"{url}: /metrics answers {status}")
    metrics: Metrics = {}
    for line in body.decode().splitlines():
        match = _SAMPLE.match(line)
        if match and not line.startswith("#"):
            name, labels, value = match.groups()
            metrics.setdefault(name, []).append((dict(_LABEL.findall(labels or "")), float(value)))
    return metrics


def _by_label(metrics: Metrics, name: str, label: str, **where: str) -> dict[str, int]:
    """Sums above zero by the values of `label`, over the samples whose other labels are as in `where`."""
    sums: dict[str, int] = {}
    for labels, value in metrics.get(name, []):
        if label in labels and all(labels.get(key) == wanted for key, wanted in where.items()):
            sums[labels[label]] = sums.get(labels[label], 0) + int(value)
    return {key: value for key, value in sorted(sums.items()) if value}


def _pending(metrics: Metrics, model: str) -> int | None:
    samples = [v for labels, v in metrics.get("nv_inference_pending_request_count", []) if labels["model"] == model]
    return int(sum(samples)) if samples else None


def _gpus(metrics: Metrics) -> dict[str, dict[str, float]]:
    gpus: dict[str, dict[str, float]] = {}
    for key in ("utilization", "memory_used_bytes", "memory_total_bytes"):
        for labels, value in metrics.get(f"nv_gpu_{key}", []):
            gpus.setdefault(labels.get("gpu_uuid", "GPU"), {})[key] = value
    return gpus


def _instances(config: Mapping[str, Any]) -> str:
    places = []
    for group in config.get("instance_group", []):
        # Triton repeats the count for every GPU of the group.
        place = "GPU " + ",".join(map(str, group["gpus"])) if group.get("gpus") else group["kind"].removeprefix("KIND_")
        places.append(f"{group['count']} x {place}")
    return " + ".join(places)


def _engine(config: Mapping[str, Any]) -> str:
    """What runs the detector, as far as its configuration tells."""
    if config.get("platform") == "tensorrt_plan" or config.get("backend") == "tensorrt":
        return "TensorRT plan"
    values = {key: entry.get("string_value", "") for key, entry in config.get("parameters", {}).items()}
    if "engine" in values:
        return f"{values['engine']}, precision {values.get('precision', 'unknown')}"
    return config.get("backend") or config.get("platform") or "unknown"


def _json(url: str, method: str, path: str) -> Any:
    status, body = _request(url, method, path)
    try:
        answer = json.loads(body)
    except ValueError as error:
        raise StatusError(f"{url}: no Triton server there: {method} {path} answers {status} without JSON") from error
    if status != 200:
        raise StatusError(f"{url}: {method} {path} answers {status}: {answer.get('error', '')}")
    return answer


def _request(url: str, method: str, path: str) -> tuple[int, bytes]:
    try:
        connection = http.client.HTTPConnection(url, timeout=TIMEOUT)
    except http.client.InvalidURL as error:
        raise StatusError(f"{url}: {error}") from error
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.HTTPException as error:
        raise StatusError(f"{url}: no HTTP server there") from error
    except OSError as error:
        raise StatusError(f"{url}: {error.strerror or error}") from error
    finally:
        connection.close()
