"""How long a request spends in each step, from the statistics extension before and after."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from container.repository import STEPS
from nudenet_tools.server.status import Counters, read_statistics

_NAMES = dict(zip(STEPS, ("decode", "detect", "NMS"), strict=True))
_NOTHING = (Counters(), 0)
_READINGS = 5  # at most: a step counts a request only after it has answered


class StepTimes:
    """A context manager around requests; afterwards `steps` and `seconds` tell what they took.

    Triton's counters are for all its clients: what others ask in the meantime is in the means.

    Args:
        http_url: HOST:PORT of the server's HTTP.

    Attributes:
        seconds: wall clock time of what was inside.
        steps: counters of that time by model.

    Raises:
        status.StatusError: the server does not answer.
    """

    def __init__(self, http_url: str) -> None:
        self._url = http_url
        self._before: dict[str, tuple[Counters, int]] = {}
        self.steps: dict[str, Counters] = {}
        self.seconds = 0.0
        self._begin = 0.0

    def __enter__(self) -> StepTimes:
        self._before = read_statistics(self._url)
        self._begin = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.perf_counter() - self._begin
        if kind is None:
            for _ in range(_READINGS):
                after = read_statistics(self._url)
                self.steps = {m: after.get(m, _NOTHING)[0] - self._before.get(m, _NOTHING)[0] for m in STEPS}
                if all(counters.requests for counters in self.steps.values()):
                    break
                time.sleep(0.002)

    def html(self, own: Mapping[str, float]) -> str:
        """Bars for the page: mean milliseconds a request in each step, and `own` steps of the page in seconds."""
        parts: list[tuple[str, str, float, float]] = []  # name, title, waiting, working: milliseconds
        for model, counters in self.steps.items():
            working = sum(counters.milliseconds(name) for name in ("input", "infer", "output"))
            parts.append((_NAMES[model], model, counters.milliseconds("queue"), working))
        requests = self.steps[STEPS[0]].requests
        if requests == 1:  # more of them overlap, and the rest is no one's
            rest = self.seconds * 1e3 - sum(waiting + working for _, _, waiting, working in parts)
            parts.append(("transport", "gRPC, and Triton between the steps", 0.0, max(0.0, rest)))
        parts += [(name, "in this page's server", 0.0, seconds * 1e3) for name, seconds in own.items()]
        longest = max((waiting + working for _, _, waiting, working in parts), default=0.0) or 1.0
        rows = "".join(
            f'<tr title="{title}"><th>{name}</th><td><div class="bar">'
            f'<div class="wait" style="width:{waiting / longest:.1%}"></div>'
            f'<div class="work" style="width:{working / longest:.1%}"></div></div></td>'
            f"<td>{waiting + working:.1f} ms</td></tr>"
            for name, title, waiting, working in parts
        )
        of = "This request" if requests == 1 else f"Mean of {requests} requests"
        total = f"{self.seconds * 1e3:.1f} ms round trip" if requests == 1 else f"{self.seconds:.1f} s in all"
        legend = '<span class="work key"></span> working <span class="wait key"></span> waiting in a queue'
        return f'<div class="times"><h3>{of}: {total}</h3><table>{rows}</table><small>{legend}</small></div>'
