"""Alert and recording rules against promtool, the dashboard against itself."""

from __future__ import annotations

import itertools
import json
import subprocess
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).parents[3] / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
PANELS = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())["panels"]


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False)


def alerts() -> dict[str, dict]:
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


@pytest.mark.needs("prometheus")
def test_config_and_rule_files_are_valid():
    result = promtool("check", "config", "prometheus.yml")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.needs("prometheus")
def test_rules_do_what_their_tests_say():
    result = promtool("test", "rules", "alerts_test.yml")
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_alert_is_shown_to_fire_and_to_stay_silent():
    cases = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
    asked = [case for group in cases for case in group.get("alert_rule_test", ())]
    fired = {case["alertname"] for case in asked if case["exp_alerts"]}
    silent = {case["alertname"] for case in asked if not case["exp_alerts"]}
    assert fired == silent == set(alerts())


@pytest.mark.parametrize("name", alerts())
def test_alert_says_how_bad_and_what_to_do(name: str):
    rule = alerts()[name]
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"].keys() == {"summary", "action"}


def test_dashboard_panels_have_own_ids_and_places():
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)

    def cells(panel: dict) -> set[tuple[int, int]]:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24
        return set(itertools.product(range(grid["x"], grid["x"] + grid["w"]), range(grid["y"], grid["y"] + grid["h"])))

    for one, other in itertools.combinations(PANELS, 2):
        assert not cells(one) & cells(other), f"{one['title']} overlaps {other['title']}"


@pytest.mark.parametrize(
    "panel", [panel for panel in PANELS if panel["type"] != "row"], ids=lambda panel: panel["title"]
)
def test_dashboard_panel_explains_itself_and_follows_the_data_source(panel: dict):
    assert panel["description"] and panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
