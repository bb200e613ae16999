"""Candidates to a verdict: allow, review or block, by the thresholds of a named policy. Pure numpy.

A policy looks at every candidate of the network by itself, before suppression and before any limit or filter that the
request asks for: a confident box over another one hides nothing from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from reprlib import repr as quoted  # shortened: gRPC drops errors of more than 8 kB
from typing import Any

import numpy as np

from nudenet_steps.postprocess.parameters import ParameterError
from nudenet_steps.postprocess.policy_file import DEFAULT, Policy, PolicyFile

ALLOW, REVIEW, BLOCK, ERROR = "allow", "review", "block", "error"
_REFUSED = "the picture was refused, see the output error"
_NOT_A_NUMBER = "the network answered NaN, or a class that it does not have"
_DIGITS = 6


@dataclass(frozen=True)
class Judgement:
    """One picture's verdict, `reasons` as a request gets it, before JSON; see docs/decisions.md."""

    verdict: str
    reasons: Mapping[str, Any]


class Judge:
    """Applies the policies of a file.

    Args:
        policies: the file.
        labels: class names; the index is the class id.
        network: identity of the network, see `policy_file.network_sha256`.
    """

    def __init__(self, policies: PolicyFile, labels: Sequence[str], network: str) -> None:
        self._policies, self._labels, self._network = policies, labels, network
        self._tables = {name: _Table(policy, labels) for name, policy in policies.policies.items()}

    def choose(self, name: object = None) -> str | None:
        """The policy of a request.

        Args:
            name: the request's parameter; None where there is none.

        Returns:
            a name for `judge`; None: nobody asked, and the file has no default.

        Raises:
            ParameterError: there is no such policy; names those that there are.
        """
        if name is None or (name == DEFAULT and self._policies.default):
            return self._policies.default
        if isinstance(name, str) and name in self._tables:
            return name
        known = ", ".join(self._tables)
        hint = f" ({DEFAULT} works where policies.json names one)" if name == DEFAULT else ""
        raise ParameterError(f"policy must be one of {known}, got {quoted(name)}{hint}")

    def judge(self, candidates: np.ndarray, geometry: np.ndarray, name: str) -> Judgement:
        """Judge one picture.

        Args:
            candidates: FP32 [N,6]: x1, y1, x2, y2 in model pixels, class id, confidence; in any order.
            geometry: FP32 [4]: x scale, y scale (source per model pixel), source width, source height; all zero: the
                picture was refused, which is never allowed.
            name: from `choose`.
        """
        if geometry[2] == 0:
            return self._answer(name, ERROR, [], _REFUSED)
        table = self._tables[name]
        if np.isnan(candidates).any():
            return self._answer(name, ERROR, [], _NOT_A_NUMBER)
        found = candidates[candidates[:, 5] >= table.lowest]
        if not len(found):
            return self._answer(name, ALLOW, [])
        if (found[:, 4] < 0).any() or (found[:, 4] >= len(self._labels)).any():
            return self._answer(name, ERROR, [], _NOT_A_NUMBER)
        x_scale, y_scale, width, height = geometry
        boxes = found[:, :4] * np.array((x_scale, y_scale, x_scale, y_scale), np.float32)
        np.clip(boxes, 0, (width, height, width, height), out=boxes)
        sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
        areas = (sides[:, 0] / width) * (sides[:, 1] / height)
        classes, confidences = found[:, 4].astype(np.int64), found[:, 5]
        counts = (areas > 0) & (areas >= table.least_area[classes]) & (confidences >= table.lowest_of[classes])
        # Of each class the most confident candidate speaks, whatever the order they came in.
        order = np.lexsort((classes, *boxes.T, areas, confidences))[::-1]
        findings, seen = [], set()
        for i in order[counts[order]]:
            class_id = int(classes[i])
            if class_id not in seen:
                seen.add(class_id)
                findings.append(self._finding(table, class_id, boxes[i], areas[i], confidences[i]))
        findings.sort(key=lambda finding: finding["verdict"] != BLOCK)  # the sort is stable: then by confidence
        return self._answer(name, findings[0]["verdict"] if findings else ALLOW, findings)

    def _finding(
        self, table: _Table, class_id: int, box: np.ndarray, area: np.float32, confidence: np.float32
    ) -> dict[str, Any]:
        blocks = bool(confidence >= table.block[class_id])
        rule = table.policy.classes[self._labels[class_id]]
        return {
            "class": self._labels[class_id],
            "verdict": BLOCK if blocks else REVIEW,
            "confidence": round(float(confidence), _DIGITS),
            "threshold": rule.block if blocks else rule.review,
            "area": round(float(area), _DIGITS),
            "box": [round(value, 2) for value in box.tolist()],
        }

    def _answer(self, name: str, verdict: str, findings: list[dict[str, Any]], error: str = "") -> Judgement:
        policy = self._policies.policies[name]
        reasons: dict[str, Any] = {
            "policy": name,
            "version": policy.version,
            "policy_sha256": policy.sha256,
            "network_sha256": self._network,
            "findings": findings,
        }
        return Judgement(verdict, reasons | ({"error": error} if error else {}))


class _Table:
    """A policy's thresholds by class id, as FP32 like the confidences; infinite where there is none."""

    def __init__(self, policy: Policy, labels: Sequence[str]) -> None:
        self.policy = policy
        self.block = np.full(len(labels), np.inf, np.float32)
        self.lowest_of = np.full(len(labels), np.inf, np.float32)
        self.least_area = np.zeros(len(labels), np.float32)
        for label, rule in policy.classes.items():
            class_id = labels.index(label)
            self.block[class_id] = np.inf if rule.block is None else rule.block
            self.lowest_of[class_id] = rule.block if rule.review is None else rule.review
            self.least_area[class_id] = rule.least_area
        self.lowest = self.lowest_of.min()


def tensors(judge: Judge, name: str | None, candidates: np.ndarray, geometry: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs ``verdict`` and ``reasons`` of one request, BYTES [B,1]; empty strings without a policy.

    Args:
        candidates: FP32 [B,N,6]. geometry: FP32 [B,4]. Both as `Judge.judge` takes them, with the batch first.
    """
    if name is None:
        empty = np.array([(b"",)] * len(candidates), np.object_)
        return {"verdict": empty, "reasons": empty}
    judged = [judge.judge(rows, where, name) for rows, where in zip(candidates, geometry, strict=True)]
    reasons = [(json.dumps(one.reasons, separators=(",", ":")).encode(),) for one in judged]
    return {
        "verdict": np.array([(one.verdict.encode(),) for one in judged], np.object_),
        "reasons": np.array(reasons, np.object_),
    }
