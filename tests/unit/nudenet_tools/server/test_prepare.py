"""`prepare.py`: which configurations are worth measuring precisions for."""

from __future__ import annotations

import pytest

from nudenet_tools.server.prepare import serves_openvino


@pytest.mark.parametrize(
    ("name", "expected"), [("cpu", True), ("cuda", False), ("rtx", False), ("live", False), ("", False)]
)
def test_only_openvino_has_a_precision_to_choose(name, expected):
    assert serves_openvino(name) is expected
