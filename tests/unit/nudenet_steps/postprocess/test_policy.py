"""`policy.py`: verdicts against their definition, and properties that nobody may get around."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nudenet_steps import pipeline
from nudenet_steps.postprocess import policy, policy_file
from nudenet_steps.postprocess.parameters import ParameterError
from nudenet_steps.postprocess.policy_file import Policy, PolicyFile, Rule

LABELS = pipeline.labels()
SHIPPED = policy_file.load(pipeline.MODEL_REPOSITORY / "nudenet_postprocess" / "policies.json", LABELS)
JUDGE = policy.Judge(SHIPPED, LABELS, "network")
SEVERITY = {"allow": 0, "review": 1, "block": 2}
GEOMETRY = np.array([4, 4, 1280, 720], np.float32)
BREAST, BUTTOCKS, FACE = (
    LABELS.index(f"{name}") for name in ("FEMALE_BREAST_EXPOSED", "BUTTOCKS_EXPOSED", "FACE_MALE")
)

names = st.sampled_from(list(SHIPPED.policies))
rows = st.tuples(
    st.floats(-20, 300, width=32),
    st.floats(-20, 170, width=32),
    st.floats(0, 320, width=32),
    st.floats(0, 180, width=32),
    st.sampled_from(range(len(LABELS))),
    st.floats(0, 1, width=32),
)


def candidates(*found) -> np.ndarray:
    """FP32 [n,6] from (left, top, width, height, class id, confidence) in model pixels."""
    return np.array([[x, y, x + w, y + h, k, c] for x, y, w, h, k, c in found], np.float32).reshape(-1, 6)


def judge(name, *found, judge=JUDGE):
    return judge.judge(candidates(*found), GEOMETRY, name)


def definition(name: str, found: np.ndarray, width: float = 320, height: float = 180) -> str:
    """The verdict, one candidate at a time, in model pixels."""
    worst = "allow"
    for x1, y1, x2, y2, class_id, confidence in found:
        rule = SHIPPED.policies[name].classes.get(LABELS[int(class_id)])
        across = np.clip(x2, 0, width) - np.clip(x1, 0, width)
        down = np.clip(y2, 0, height) - np.clip(y1, 0, height)
        if rule is None or not (across > 0 and down > 0) or across * down / (width * height) < rule.least_area:
            continue
        if rule.block is not None and confidence >= np.float32(rule.block):
            return "block"
        if rule.review is not None and confidence >= np.float32(rule.review):
            worst = "review"
    return worst


@settings(max_examples=200, deadline=None)
@given(names, st.lists(rows, max_size=20))
def test_the_verdict_is_that_of_the_definition(name, found):
    verdict = judge(name, *found).verdict
    areas = [w * h / (320 * 180) for _, _, w, h, _, _ in found]
    if all(abs(area - least) > 1e-6 for area in areas for least in (0.001, 0.002, 0.005, 0.01, 0.02)):
        assert verdict == definition(name, candidates(*found))


@settings(max_examples=200, deadline=None)
@given(names, st.lists(rows, min_size=1, max_size=12), st.data())
def test_more_confidence_area_or_candidates_never_make_it_milder(name, found, data):
    before = SEVERITY[judge(name, *found).verdict]
    i = data.draw(st.integers(0, len(found) - 1))
    x, y, w, h, class_id, confidence = found[i]
    more = data.draw(st.floats(confidence, 1, width=32))
    grown = data.draw(st.floats(0, 200, width=32))
    for changed in ((x, y, w, h, class_id, more), (x, y, w + grown, h + grown, class_id, confidence)):
        assert SEVERITY[judge(name, *found[:i], changed, *found[i + 1 :]).verdict] >= before
    assert SEVERITY[judge(name, *found, data.draw(rows)).verdict] >= before


@settings(max_examples=100, deadline=None)
@given(names, st.lists(rows, max_size=12), st.randoms(use_true_random=False))
def test_order_does_not_matter(name, found, random):
    mixed = found[:]
    random.shuffle(mixed)
    assert judge(name, *mixed) == judge(name, *found)


@settings(max_examples=100, deadline=None)
@given(st.lists(rows, max_size=12))
def test_a_stricter_policy_is_never_milder(found):
    strict, standard, lenient = (SEVERITY[judge(name, *found).verdict] for name in ("strict", "standard", "lenient"))
    assert strict >= standard >= lenient


@settings(max_examples=100, deadline=None)
@given(names, st.lists(rows, max_size=12), st.booleans())
def test_the_sex_of_a_face_makes_no_difference(name, found, female):
    face = LABELS.index("FACE_FEMALE" if female else "FACE_MALE")
    other = LABELS.index("FACE_MALE" if female else "FACE_FEMALE")
    turned = [(*row[:4], other, row[5]) if row[4] == face else row for row in found]
    assert judge(name, *found).verdict == judge(name, *turned).verdict


def test_reasons_say_what_decided():
    found = judge(
        "standard",
        (10, 10, 32, 18, BREAST, 0.5),
        (12, 10, 32, 18, BREAST, 0.4),
        (100, 50, 64, 36, BUTTOCKS, 0.75),
        (100, 50, 64, 36, FACE, 0.99),
    )
    assert found.verdict == "block"
    assert found.reasons == {
        "policy": "standard",
        "version": 1,
        "policy_sha256": SHIPPED.policies["standard"].sha256,
        "network_sha256": "network",
        "findings": [
            {
                "class": "BUTTOCKS_EXPOSED",
                "verdict": "block",
                "confidence": 0.75,
                "threshold": 0.65,
                "area": 0.04,
                "box": [400, 200, 656, 344],
            },
            {
                "class": "FEMALE_BREAST_EXPOSED",
                "verdict": "review",
                "confidence": 0.5,
                "threshold": 0.35,
                "area": 0.01,
                "box": [40, 40, 168, 112],
            },
        ],
    }


def test_the_threshold_itself_counts():
    assert judge("standard", (0, 0, 99, 99, BREAST, 0.35)).verdict == "review"
    assert judge("standard", (0, 0, 99, 99, BREAST, np.nextafter(np.float32(0.35), np.float32(0)))).verdict == "allow"


def made_of(*rules: Rule) -> policy.Judge:
    """A judge whose only policy, p, has these rules for the breast and the buttocks."""
    labels = ("FEMALE_BREAST_EXPOSED", "BUTTOCKS_EXPOSED")
    only = Policy("p", 1, dict(zip(labels, rules, strict=False)), "")
    return policy.Judge(PolicyFile({"p": only}), LABELS, "")


def test_thresholds_are_the_classs_own_and_compared_as_the_network_has_them():
    one = made_of(Rule(0.35, 0.7), Rule(0.6, None))
    for class_id, confidence, verdict in (
        (BREAST, 0.35, "review"),  # as FP32 both are below what the file says
        (BREAST, 0.7, "block"),
        (BREAST, 0.34, "allow"),
        (BUTTOCKS, 0.5, "allow"),
        (BUTTOCKS, 0.99, "review"),
        (FACE, 0.99, "allow"),
    ):
        assert judge("p", (0, 0, 99, 99, class_id, confidence), judge=one).verdict == verdict


def test_the_least_area_itself_counts():
    for width, share in ((160, 0.5), (224, 0.7), (96, 0.3)):
        one = made_of(Rule(0.5, None, share))
        assert judge("p", (0, 0, width, 180, BREAST, 0.9), judge=one).verdict == "review"
        assert judge("p", (0, 0, width - 1, 180, BREAST, 0.9), judge=one).verdict == "allow"


def test_only_what_lies_in_the_picture_counts():
    found = judge("p", (-50, -20, 82, 38, BREAST, 0.9), judge=made_of(Rule(0.5, None)))
    assert found.reasons["findings"][0]["box"] == [0, 0, 128, 72]
    assert found.reasons["findings"][0]["area"] == 0.01


@pytest.mark.parametrize("other", [(60, 10, 32, 18), (10, 60, 32, 18), (10, 10, 18, 32)])
def test_of_equals_the_same_one_speaks_in_any_order(other):
    one, two = (10, 10, 32, 18, BREAST, 0.9), (*other, BREAST, 0.9)
    rule = made_of(Rule(0.5, None))
    assert judge("p", one, two, judge=rule) == judge("p", two, one, judge=rule)


def test_equal_classes_are_listed_in_one_order():
    box = (10, 10, 32, 18)
    one, two = (*box, BREAST, 0.9), (*box, BUTTOCKS, 0.9)
    rules = made_of(Rule(0.5, None), Rule(0.5, None))
    assert judge("p", one, two, judge=rules) == judge("p", two, one, judge=rules)


def test_what_lies_in_the_padding_does_not_count():
    portrait = np.array([4, 4, 400, 720], np.float32)  # the rest of the canvas is padding
    outside = candidates((150, 10, 100, 100, BREAST, 0.99))
    assert JUDGE.judge(outside, portrait, "strict").verdict == "allow"
    assert JUDGE.judge(outside, GEOMETRY, "strict").verdict == "block"


@pytest.mark.parametrize("where", range(6))
def test_an_answer_that_is_no_number_is_an_error(where):
    rows = candidates((0, 0, 99, 99, FACE, 0.9), (0, 0, 99, 99, FACE, 0.9))
    rows[1, where] = np.nan
    found = JUDGE.judge(rows, GEOMETRY, "lenient")
    assert (found.verdict, found.reasons["findings"]) == ("error", [])
    assert "NaN" in found.reasons["error"]


def test_a_class_beyond_the_labels_is_an_error():
    for class_id in (len(LABELS), -1):
        found = judge("lenient", (0, 0, 99, 99, class_id, 0.9))
        assert (found.verdict, found.reasons["findings"]) == ("error", [])
        assert "a class that it does not have" in found.reasons["error"]


def test_a_refused_picture_is_an_error_and_never_allowed():
    found = JUDGE.judge(np.zeros((1260, 6), np.float32), np.zeros(4, np.float32), "lenient")
    assert found.verdict == "error"
    assert found.reasons["findings"] == []
    assert "refused" in found.reasons["error"]


def test_tensors_are_empty_without_a_policy():
    batch, geometry = np.zeros((2, 5, 6), np.float32), np.stack([GEOMETRY, np.zeros(4, np.float32)])
    empty = policy.tensors(JUDGE, None, batch, geometry)
    assert {name: array.tolist() for name, array in empty.items()} == dict.fromkeys(("verdict", "reasons"), [[b""]] * 2)
    assert {array.dtype for array in empty.values()} == {np.dtype(object)}
    judged = policy.tensors(JUDGE, "strict", batch, geometry)
    assert judged["verdict"].tolist() == [[b"allow"], [b"error"]]
    reasons = [json.loads(text) for text in judged["reasons"][:, 0]]
    assert [(one["policy"], one["findings"]) for one in reasons] == [("strict", [])] * 2
    # Without spaces: it travels with every picture.
    assert judged["reasons"][0, 0] == json.dumps(reasons[0], separators=(",", ":")).encode()
    with pytest.raises(ValueError, match=r"zip\(\)"):
        policy.tensors(JUDGE, "strict", batch, geometry[:1])


def test_policies_are_chosen_by_name():
    assert JUDGE.choose(None) is None
    assert JUDGE.choose("strict") == "strict"
    for wrong in ("stric", "", 1, True, "default"):
        with pytest.raises(ParameterError) as refused:
            JUDGE.choose(wrong)
        hint = " (default works where policies.json names one)" if wrong == "default" else ""
        assert str(refused.value) == f"policy must be one of strict, standard, lenient, got {wrong!r}{hint}"
    with_default = policy.Judge(replace(SHIPPED, default="lenient"), LABELS, "")
    assert with_default.choose(None) == with_default.choose("default") == "lenient"
    assert with_default.choose("strict") == "strict"


def test_a_class_may_have_one_threshold_only():
    only_block = Policy("p", 1, {"FACE_MALE": Rule(None, 0.5), "FACE_FEMALE": Rule(None, 0.5)}, "")
    one = policy.Judge(PolicyFile({"p": only_block}), LABELS, "")
    assert judge("p", (0, 0, 9, 9, FACE, 0.49), judge=one).verdict == "allow"
    assert judge("p", (0, 0, 9, 9, FACE, 0.5), judge=one).verdict == "block"
    empty = policy.Judge(PolicyFile({"p": Policy("p", 1, {}, "")}), LABELS, "")
    assert judge("p", (0, 0, 9, 9, FACE, 0.99), judge=empty).verdict == "allow"
