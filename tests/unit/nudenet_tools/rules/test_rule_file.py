"""The rule file is read strictly: each mistake is refused with a message that says where it is and what is allowed."""

import dataclasses

import pytest

from container import repository
from nudenet_tools.rules.rule_file import Level, Rule, RuleFileError, parse, read

LABELS = ("FACE_FEMALE", "FACE_MALE", "BELLY_EXPOSED")
FULL = """
lost_after = 20
policy = "standard"

[[rule]]
name = "faces"
classes = ["FACE_FEMALE", "FACE_MALE"]
min_confidence = 0.5
hits = 3
frames = 5
end_after = 4.0
cooldown = 30
update_every = 10
escalation = [{ after = 60, level = "long" }, { after = 600, level = "very long" }]

[[rule]]
name = "blocked"
verdict = "block"
seconds = 1.5
"""


def rule(lines, top=""):
    return f'{top}\n[[rule]]\nname = "r"\n{lines}'


def test_every_key():
    faces, blocked = parse(FULL, LABELS).rules
    assert faces == Rule(
        name="faces",
        classes=("FACE_FEMALE", "FACE_MALE"),
        min_confidence=0.5,
        hits=3,
        frames=5,
        end_after=4.0,
        cooldown=30.0,
        update_every=10.0,
        escalation=(Level(60.0, "long"), Level(600.0, "very long")),
        lost_after=20.0,
    )
    assert blocked == Rule(name="blocked", verdict="block", frames=0, seconds=1.5, lost_after=20.0, policy="standard")
    assert parse(FULL, LABELS).policy == "standard"
    assert parse(FULL, LABELS).classes == {"FACE_FEMALE", "FACE_MALE"}


def test_the_hash_changes_with_every_value_and_with_nothing_else():
    faces = parse(FULL, LABELS).rules[0]
    assert parse(FULL.replace("4.0", "4").replace("hits = 3", "hits = 3 # three"), LABELS).rules[0] == faces
    assert len(faces.sha256) == 64
    changes = {
        "name": "x",
        "classes": ("FACE_MALE",),
        "verdict": "block",
        "min_confidence": 0.6,
        "hits": 2,
        "frames": 6,
        "seconds": 1.0,
        "end_after": 5.0,
        "cooldown": 1.0,
        "update_every": 1.0,
        "escalation": (),
        "lost_after": 1.0,
        "policy": "strict",
    }
    assert set(changes) == {field.name for field in dataclasses.fields(Rule)}
    hashes = {dataclasses.replace(faces, **{key: value}).sha256 for key, value in changes.items()}
    assert len(hashes | {faces.sha256}) == len(changes) + 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"it must have at least one \[\[rule\]\]"),
        ("rule = 3", r"it must have at least one \[\[rule\]\]"),
        ("rule = [3]", r"it must have at least one \[\[rule\]\]"),
        ("[[rule]", "not TOML: "),
        ("rule = " + "[" * 100_000, "nested too deeply"),
        ("secret = 1", "the file: there is no key 'secret'; there are: lost_after, policy, rule"),
        (rule("classes = ['FACE_MALE']\nframes = 1", "lost_after = 0"), "the file: lost_after must be above 0 seconds"),
        ("[[rule]]\nframes = 1", "rule 1: name is missing"),
        (rule("classes = ['FACE_MALE']\nframes = 1\ncooldwon = 1"), "rule 'r': there is no key 'cooldwon'"),
        (rule("frames = 1"), "rule 'r': give either classes or verdict"),
        (rule("frames = 1\nclasses = ['FACE_MALE']\nverdict = 'block'"), "give either classes or verdict"),
        (rule("frames = 1\nclasses = ['FACE']"), "classes has 'FACE'; there are: FACE_FEMALE, "),
        (rule("frames = 1\nclasses = []"), r"classes must be a list of class names, got \[\]"),
        (rule("frames = 1\nclasses = 'FACE_MALE'"), "classes must be a list"),
        (rule("frames = 1\nclasses = [['FACE_MALE']]"), "classes has "),
        (rule("frames = 1\nclasses = ['FACE_MALE', 'FACE_MALE']"), "names a class twice"),
        (rule("frames = 1\nverdict = 'allow'", "policy = 'standard'"), "verdict must be one of review, block, got"),
        (rule("frames = 1\nverdict = 'block'"), "a verdict needs a policy"),
        (rule("frames = 1\nverdict = 'block'\nmin_confidence = 0.5", "policy = 'p'"), "min_confidence is for classes"),
        (rule("frames = 1\nclasses = ['FACE_MALE']", "policy = 'p'"), "policy is 'p', but no rule has a verdict"),
        (rule("classes = ['FACE_MALE']"), "give the window either as frames or as seconds"),
        (rule("classes = ['FACE_MALE']\nframes = 1\nseconds = 1"), "either as frames or as seconds"),
        (rule("classes = ['FACE_MALE']\nframes = 2\nhits = 3"), "hits is 3, more than the window's 2 frames"),
        (rule("classes = ['FACE_MALE']\nframes = 1.5"), "frames must be a whole number from 1 to 10000, got 1.5"),
        (rule("classes = ['FACE_MALE']\nframes = true"), "frames must be a whole number"),
        (rule("classes = ['FACE_MALE']\nseconds = 601"), "seconds must be a number from 0 to 600, got 601"),
        (rule("classes = ['FACE_MALE']\nseconds = 0"), "seconds must be above 0"),
        (rule("classes = ['FACE_MALE']\nframes = 1\nend_after = nan"), "end_after must be a number from 0 to 604800"),
        (rule("classes = ['FACE_MALE']\nframes = 1\nend_after = '1'"), "end_after must be a number"),
        (
            rule("classes = ['FACE_MALE']\nframes = 1\nmin_confidence = 50"),
            "min_confidence must be a number from 0 to 1",
        ),
        (rule("classes = ['FACE_MALE']\nframes = 1\nescalation = 5"), "escalation must be a list of tables"),
        (rule("classes = ['FACE_MALE']\nframes = 1\nescalation = [{after = 1}]"), "escalation 1: it must have both"),
        (rule("classes = ['FACE_MALE']\nframes = 1\nescalation = [{after = 1, level = ''}]"), "level must be a text"),
        (
            rule(
                "classes = ['FACE_MALE']\nframes = 1\nescalation = [{after = 2, level = 'a'}, {after = 2, level = 'b'}]"
            ),
            "each escalation must have a larger after",
        ),
        (2 * rule("classes = ['FACE_MALE']\nframes = 1"), "two rules have this name"),
    ],
)
def test_a_mistake_is_named(text, message):
    with pytest.raises(RuleFileError, match=message):
        parse(text, LABELS)


def test_the_message_names_the_file(tmp_path):
    with pytest.raises(RuleFileError, match=r"missing\.toml: "):
        read(tmp_path / "missing.toml", LABELS)
    (tmp_path / "bad.toml").write_text("x = 1")
    with pytest.raises(RuleFileError, match=r"bad\.toml: the file: there is no key 'x'"):
        read(tmp_path / "bad.toml", LABELS)
    (tmp_path / "good.toml").write_text(FULL)
    assert len(read(tmp_path / "good.toml", repository.labels()).rules) == 2
