"""`metrics.py`: nothing is lost between the rare visits to the server."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from nudenet_steps.serving import metrics


class Family:
    """Records what Triton's MetricFamily would be told."""

    COUNTER, GAUGE = "counter", "gauge"

    def __init__(self, name, description, kind):
        self.name, self.totals, self.updates = name, {}, 0
        FAMILIES[name] = self

    def Metric(self, labels):
        key = tuple(labels.items())

        def increment(value):
            self.totals[key] = self.totals.get(key, 0) + value
            self.updates += 1

        def set(value):
            self.totals[key] = value

        return SimpleNamespace(increment=increment, set=set)


FAMILIES: dict[str, Family] = {}
DECLARED = {"pictures_total": ("All", ()), "refused_total": ("Refused", ("step", "reason"))}


def test_totals_arrive_once_a_second_and_complete(monkeypatch):
    now = 100.0
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now)
    counted = metrics.Counters(SimpleNamespace(MetricFamily=Family), DECLARED)
    for step in range(50):
        now = 100.0 + step / 10
        counted.add("pictures_total")
        counted.add("refused_total", 2.5, "decoder", "empty")
        counted.flush()
    assert FAMILIES["pictures_total"].updates == 5
    now = 200.0
    counted.flush()
    assert FAMILIES["pictures_total"].totals == {(): 50}
    assert FAMILIES["refused_total"].totals == {(("step", "decoder"), ("reason", "empty")): pytest.approx(125)}


def test_a_server_without_metrics_is_served_too():
    counted = metrics.Counters(SimpleNamespace(), DECLARED)
    counted.add("pictures_total")
    counted.flush()
