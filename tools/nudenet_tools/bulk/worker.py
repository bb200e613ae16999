"""What one actor of a bulk run does: read the pictures of one part, detect, write the part."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

import numpy as np

from container import repository
from nudenet_client import Client, ClientError, Detections, Parameters, PictureError, upright_size
from nudenet_tools.bulk import sources
from nudenet_tools.bulk.parts import Parts
from nudenet_tools.options import LOCAL, Access

if TYPE_CHECKING:
    from nudenet_steps.postprocess import policy

READERS = 8  # pictures read at a time by one actor: object stores answer slowly, but many at once
BATCH = 8
BULK_PRIORITY = 2  # live requests go first where the server has priority levels
_REFUSED = np.zeros((0, 6), np.float32), np.zeros(4, np.float32)  # candidates and geometry of a refused picture
PATIENCE = 12  # tries of one request: about 20 seconds, long enough for a server's restart


class Detector(Protocol):
    """Detects in any number of JPEG files; a bad one yields a failed result, never an exception."""

    def __call__(self, files: Sequence[bytes]) -> list[Detections]: ...


class ServerDetector:
    """Asks Triton servers. Every part is spread evenly over all of them."""

    def __init__(self, urls: Sequence[str], parameters: Parameters, access: Access = LOCAL) -> None:
        self._clients = [Client(url, deadline=120, retries=PATIENCE, round_robin=True, **access) for url in urls]
        self._parameters = parameters

    def __call__(self, files: Sequence[bytes]) -> list[Detections]:
        found: list[Detections] = [Detections.failed("not asked")] * len(files)
        count = len(self._clients)

        def ask(number: int) -> None:
            mine = files[number::count]
            found[number::count] = self._clients[number].detect_many(mine, self._parameters, on_error="report")

        with ThreadPoolExecutor(count) as pool:
            list(pool.map(ask, range(count)))
        return found


class EmbeddedDetector:
    """The serving code itself, without a server: OpenVINO with one thread, for as many actors as cores."""

    def __init__(self, parameters: Parameters) -> None:
        from nudenet_steps import pipeline
        from nudenet_steps.engines import engine_class
        from nudenet_steps.postprocess import policy, policy_file
        from nudenet_steps.postprocess.parameters import parse_settings
        from nudenet_steps.preprocess import jpeg

        config = repository.read_config(repository.config_path("nudenet_preprocess", "cpu"))
        value = {key: parameter.string_value for key, parameter in config.parameters.items()}
        limits = jpeg.Limits(**{limit.name: int(value[limit.name]) for limit in dataclasses.fields(jpeg.Limits)})
        self._labels = repository.labels()
        given = {key: value for key, value in parameters.to_triton().items() if key != "on_error"}
        engine = engine_class("openvino")(pipeline.ENGINE_FILES, BATCH, threads=1)
        settings = parse_settings(given, self._labels)
        self._pipeline = pipeline.Pipeline(engine, BATCH, settings, limits, value["strict"] == "true")
        self._policy: str | None = None
        if parameters.policy is not None:
            path = repository.MODEL_REPOSITORY / "nudenet_postprocess" / policy_file.FILE
            policies, network = policy_file.load(path, self._labels), policy_file.network_sha256(pipeline.ENGINE_FILES)
            self._judge = policy.Judge(policies, self._labels, network)
            self._policy = self._judge.choose(parameters.policy)

    def __call__(self, files: Sequence[bytes]) -> list[Detections]:
        return [found for start in range(0, len(files), BATCH) for found in self._batch(files[start : start + BATCH])]

    def _batch(self, files: Sequence[bytes]) -> Iterator[Detections]:
        judged: dict[int, policy.Judgement] = {}

        def look(index: int, candidates: np.ndarray, geometry: np.ndarray) -> None:
            if self._policy is not None:
                judged[index] = self._judge.judge(candidates, geometry, self._policy)

        for i, (data, found) in enumerate(zip(files, self._pipeline.run(files, look), strict=True)):
            if isinstance(found, Exception):
                answer = Detections.failed(str(found))
            else:
                labels = [self._labels[int(class_id)] for class_id in found[:, 4]]
                answer = Detections.from_rows(found, labels, upright_size(data))
            if self._policy is not None:
                judgement = judged.get(i) or self._judge.judge(*_REFUSED, self._policy)
                answer = dataclasses.replace(answer, verdict=judgement.verdict, reasons=judgement.reasons)
            yield answer


class Worker:
    """A Ray Data actor. Pictures are read, looked at and written here, so only their names travel."""

    def __init__(self, output: str, make_detector: Callable[[], Detector], parameters: Parameters) -> None:
        self._parts = Parts(output)
        self._parameters = parameters
        self._detect = make_detector()
        self._readers = ThreadPoolExecutor(READERS)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One block of names is one part.

        Returns:
            one row: how many pictures it has, how many of them were bad, and why none was looked at, if so.
        """
        sources = batch["source"].tolist()
        contents = list(self._readers.map(_read, sources))
        readable = [data for data in contents if isinstance(data, bytes)]
        try:
            detected = iter(self._detect(readable))
        except ClientError as error:  # the servers are gone: nothing is written, the run ends
            return _summary(0, 0, str(error))
        refuse = self._parameters.failed
        found = [next(detected) if isinstance(data, bytes) else refuse(data) for data in contents]
        self._parts.write(sources, found)
        return _summary(len(sources), sum(result.error is not None for result in found))


def _summary(pictures: int, bad: int, failure: str = "") -> dict[str, np.ndarray]:
    return {"pictures": np.array([pictures]), "bad": np.array([bad]), "failure": np.array([failure])}


def _read(name: str) -> bytes | str:
    try:
        return sources.read(name)
    except PictureError as error:
        return error.reason
