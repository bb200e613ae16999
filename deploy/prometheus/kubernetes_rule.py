"""Write the rules of deploy/prometheus as the PrometheusRule that the Prometheus Operator reads."""

from __future__ import annotations

import textwrap
from pathlib import Path

DEPLOY = Path(__file__).resolve().parent.parent
TARGET = DEPLOY / "kubernetes" / "overlays" / "monitoring" / "prometheusrule.yaml"
HEADER = """\
# Made from deploy/prometheus by deploy/prometheus/kubernetes_rule.py: change the rules there.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: nudenet
spec:
  groups:
"""


def manifest() -> str:
    """The manifest's text: both rule files' groups, unchanged."""
    groups = [
        (DEPLOY / "prometheus" / name).read_text().split("\ngroups:\n", 1)[1] for name in ("rules.yml", "alerts.yml")
    ]
    return HEADER + "".join(textwrap.indent(group, "  ") for group in groups)


if __name__ == "__main__":
    TARGET.write_text(manifest())
    print(TARGET)
