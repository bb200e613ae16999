"""`policy_file.py`: what stands in policies.json is right or refused by name."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import subprocess
from typing import Any

import pytest

from nudenet_steps import pipeline
from nudenet_steps.postprocess import policy_file
from nudenet_steps.postprocess.policy_file import PolicyFileError, Rule
from nudenet_tools import ROOT

LABELS = ["FACE_FEMALE", "FACE_MALE", "FEET_EXPOSED"]
GOOD: dict[str, Any] = {
    "default": "mine",
    "policies": {
        "mine": {
            "version": 3,
            "why": "For us.",
            "classes": {"FEET_EXPOSED": {"review": 0.2, "block": 0.5, "least_area": 0.01, "why": "Shoes."}},
        }
    },
}


def changed(**values):
    """GOOD with values at paths: keys joined by two underscores; None removes."""
    content = copy.deepcopy(GOOD)
    for path, value in values.items():
        *folders, last = path.split("__")
        place = content
        for folder in folders:
            place = place[folder]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return content


def test_a_policy_is_read():
    file = policy_file.parse(GOOD, LABELS)
    assert file.default == "mine"
    mine = file.policies["mine"]
    assert (mine.name, mine.version, mine.classes) == ("mine", 3, {"FEET_EXPOSED": Rule(0.2, 0.5, 0.01)})


def test_the_hash_is_that_of_canonical_json():
    mine = GOOD["policies"]["mine"]
    text = json.dumps(mine, sort_keys=True, separators=(",", ":"))
    assert policy_file.parse(GOOD, LABELS).policies["mine"].sha256 == hashlib.sha256(text.encode()).hexdigest()
    other = changed(policies__mine__classes__FEET_EXPOSED__why="Socks.")
    assert policy_file.parse(other, LABELS).policies["mine"].sha256 != hashlib.sha256(text.encode()).hexdigest()


def test_text_beyond_ascii_is_hashed_as_utf_8(tmp_path):
    path = tmp_path / "policies.json"
    path.write_text(json.dumps(changed(policies__mine__why="Für uns."), ensure_ascii=False), encoding="utf-8")
    mine = json.loads(path.read_bytes())["policies"]["mine"]
    text = json.dumps(mine, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert policy_file.load(path, LABELS).policies["mine"].sha256 == hashlib.sha256(text.encode("utf-8")).hexdigest()


def test_limits_themselves_are_allowed():
    content = changed(
        policies__mine__why="w" * 200, policies__mine__classes={"FEET_EXPOSED": {"review": 1, "block": 1.0}}
    )
    assert policy_file.parse(content, LABELS).policies["mine"].classes == {"FEET_EXPOSED": Rule(1.0, 1.0, 0.0)}


def test_the_two_faces_have_one_rule():
    both = {"FACE_FEMALE": {"review": 0.5}, "FACE_MALE": {"review": 0.5}}
    assert len(policy_file.parse(changed(policies__mine__classes=both), LABELS).policies["mine"].classes) == 2


def test_no_default_is_fine():
    assert policy_file.parse(changed(default=None), LABELS).default is None


FEET = "policies__mine__classes__FEET_EXPOSED"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "the file must be an object, got []"),
        ({}, "the file: 'policies' is missing"),
        ({"policies": 1}, "policies must be an object, got 1"),
        ({"policies": {}}, "policies must hold at least one policy, got none"),
        (GOOD | {"policy": 1}, "the file: unknown key 'policy' with 1; allowed: policies, default"),
        (changed(default="other"), "default must be null or one of mine, got 'other'"),
        (changed(policies__mine__version=None), "policies.mine: 'version' is missing"),
        (changed(policies__mine__version=True), "policies.mine.version must be a whole number from 1, got True"),
        (changed(policies__mine__version=1.5), "policies.mine.version must be a whole number from 1, got 1.5"),
        (
            changed(policies__mine__why="a\nb"),
            r"policies.mine.why must be one line of at most 200 printable characters, got 'a\nb'",
        ),
        (changed(policies__mine__why="a\u2028b"), "policies.mine.why must be one line of at most 200 printable"),
        (changed(policies__mine__why="\ud800"), "policies.mine.why must be one line of at most 200 printable"),
        (
            changed(policies__mine__why="w" * 201),
            "policies.mine.why must be one line of at most 200 printable characters",
        ),
        (
            changed(**{f"{FEET}__why": 1}),
            "FEET_EXPOSED.why must be one line of at most 200 printable characters, got 1",
        ),
        (changed(policies__mine__classes={}), "policies.mine.classes must have at least one class, got none"),
        (changed(policies__mine__classes=[]), "policies.mine.classes must be an object, got []"),
        (
            changed(policies__mine__classes={"DOG": {}}),
            "unknown class 'DOG'; known: FACE_FEMALE, FACE_MALE, FEET_EXPOSED",
        ),
        (changed(**{FEET: {}}), "policies.mine.classes.FEET_EXPOSED must have review or block or both, got none"),
        (changed(**{f"{FEET}__revue": 0.1}), "FEET_EXPOSED: unknown key 'revue' with 0.1; allowed: review, block"),
        (changed(**{f"{FEET}__review": 0}), "FEET_EXPOSED.review must be a number above 0, up to 1, got 0"),
        (changed(**{FEET: {"review": None, "block": 0.5}}), "review must be a number above 0, up to 1, got None"),
        (changed(**{f"{FEET}__block": "high"}), "FEET_EXPOSED.block must be a number above 0, up to 1, got 'high'"),
        (changed(**{f"{FEET}__block": True}), "FEET_EXPOSED.block must be a number above 0, up to 1, got True"),
        (changed(**{f"{FEET}__block": 1.01}), "FEET_EXPOSED.block must be a number above 0, up to 1, got 1.01"),
        (changed(**{f"{FEET}__review": 0.6}), "FEET_EXPOSED.review must be at most block, got 0.6 above 0.5"),
        (changed(**{f"{FEET}__least_area": 1}), "FEET_EXPOSED.least_area must be a number from 0 to below 1, got 1"),
        (changed(**{f"{FEET}__least_area": True}), "least_area must be a number from 0 to below 1, got True"),
        (changed(**{f"{FEET}__least_area": "0"}), "least_area must be a number from 0 to below 1, got '0'"),
        (
            changed(policies__mine__classes__FACE_FEMALE={"review": 0.5}),
            "FACE_FEMALE and FACE_MALE must have the same rule or none",
        ),
        (
            changed(policies__mine__classes__FACE_MALE={"review": 0.5}),
            "FACE_FEMALE and FACE_MALE must have the same rule or none: a policy does not decide on the sex of a face",
        ),
        ({"policies": {"Mine!": GOOD["policies"]["mine"]}}, "a policy's name has 1 to 32 of a-z"),
        ({"policies": {"default": GOOD["policies"]["mine"]}}, "is not 'default', got 'default'"),
    ],
)
def test_mistakes_are_named(content, message):
    with pytest.raises(PolicyFileError) as refused:
        policy_file.parse(content, LABELS)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expecting property name"),
        ("[" * 100_000, "nested too deeply"),
        ('{"policies": {}, "policies": {}}', "the key 'policies' stands there twice"),
        (json.dumps(GOOD).replace("0.5", "NaN"), "NaN is no number in JSON"),
        (json.dumps(GOOD).replace("0.5", "2"), "FEET_EXPOSED.block must be a number above 0, up to 1, got 2"),
    ],
)
def test_the_file_is_named_too(tmp_path, text, message):
    path = tmp_path / "policies.json"
    path.write_text(text)
    with pytest.raises(PolicyFileError, match=r"policies\.json: ") as refused:
        policy_file.load(path, LABELS)
    assert message in str(refused.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(PolicyFileError, match=r"policies\.json: cannot be read: No such file"):
        policy_file.load(tmp_path / "policies.json", LABELS)


def test_every_rule_that_ships_says_why():
    path = pipeline.MODEL_REPOSITORY / "nudenet_postprocess" / policy_file.FILE
    assert list(policy_file.load(path, pipeline.labels()).policies) == ["strict", "standard", "lenient"]
    policies = json.loads(path.read_text())["policies"]
    assert all(entry["why"] for entry in policies.values())
    assert all(rule["why"] for entry in policies.values() for rule in entry["classes"].values())


def test_the_networks_hash_can_be_computed_by_hand(tmp_path):
    assert policy_file.network_sha256(tmp_path) == policy_file.network_sha256(tmp_path / "missing") == ""
    # Names whose order depends on whether they are sorted by suffix, and by which language's rules.
    for name in ("model.plan", "model.live.plan", "model.onnx", "model.rtx.engine", "Model.onnx", "model.plan.json"):
        (tmp_path / name).write_text(name)
    (command,) = re.findall(r"`(ls .*sha256sum)` prints", (ROOT / "docs" / "decisions.md").read_text())
    by_hand = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert policy_file.network_sha256(tmp_path) == by_hand.stdout.split()[0]
    (tmp_path / "model.plan").write_text("another one")
    assert policy_file.network_sha256(tmp_path) != by_hand.stdout.split()[0]
