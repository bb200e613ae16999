"""The outbox: its bounds against a model, its file, and what a kill leaves."""

import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nudenet_tools import ROOT
from nudenet_tools.webhooks.outbox import Message, Outbox, OutboxError

KINDS = st.sampled_from(["start", "update", "end"])
STEPS = st.lists(st.tuples(KINDS, st.integers(0, 40), st.integers(0, 20)) | st.none(), max_size=30)


def message(name, kind="start", body=b"{}"):
    return Message(name, kind, body)


def ids(outbox, target="t"):
    """All that wait, taken out in order."""
    found = []
    while (waiting := outbox.first(target)) is not None:
        found.append(waiting.message.id)
        outbox.delivered(waiting.number)
    return found


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_bounds(steps):
    """None is a delivery, the others are (kind, size, seconds that pass)."""
    now, model, dropped = 1000.0, [], {}

    def drop(entry):
        model.remove(entry)
        dropped[entry[1]] = dropped.get(entry[1], 0) + 1

    with tempfile.TemporaryDirectory() as folder:
        outbox = Outbox(Path(folder) / "o", max_bytes=100, max_age=60.0, clock=lambda: now)
        for number, step in enumerate(steps):
            if step is None:
                first = outbox.first("t")
                assert (first is None) == (not model)
                if first is not None:
                    outbox.delivered(first.number)
                    assert first.message.id == model.pop(0)[0]
                continue
            kind, size, passed = step
            now += passed
            outbox.record([message(str(number), kind, b"x" * size)], ["t"], {})
            model.append((str(number), kind, size, now))
            for entry in [entry for entry in model if entry[3] < now - 60.0]:
                drop(entry)
            while sum(entry[2] for entry in model) > 100:
                drop(next((entry for entry in model if entry[1] == "update"), model[0]))
        assert outbox.dropped() == dropped
        assert outbox.waiting("t") == len(model)
        assert ids(outbox) == [entry[0] for entry in model]
        outbox.close()


def test_the_file_is_for_its_owner_only(tmp_path):
    path = tmp_path / "new" / "o"
    outbox = Outbox(path)
    outbox.record([message("a")], ["t"], {"k": [1]})
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    outbox.close()
    path.chmod(0o644)
    outbox = Outbox(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert outbox.states() == {"k": [1]}
    outbox.forget(["k"])
    assert outbox.states() == {}
    outbox.close()


def test_one_process_at_a_time(tmp_path):
    outbox = Outbox(tmp_path / "o")
    with pytest.raises(OutboxError, match="another process uses it"):
        Outbox(tmp_path / "o")
    outbox.close()


def test_damaged_and_foreign_files_are_refused(tmp_path):
    (tmp_path / "text").write_text("no database" * 1000)
    with pytest.raises(OutboxError, match="move it away"):
        Outbox(tmp_path / "text")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(OutboxError, match="link"):
        Outbox(tmp_path / "link")


def test_an_id_is_never_used_twice_and_nothing_of_such_a_record_stays(tmp_path):
    outbox = Outbox(tmp_path / "o")
    outbox.record([message("a", body=b"1")], ["t"], {"k": 1})
    with pytest.raises(OutboxError, match="UNIQUE"):
        outbox.record([message("b"), message("a", body=b"2")], ["t"], {"k": 2})
    assert outbox.states() == {"k": 1}
    assert ids(outbox) == ["a"]
    outbox.close()


def test_a_postponed_message_lets_others_pass(tmp_path):
    now = 100.0
    outbox = Outbox(tmp_path / "o", clock=lambda: now)
    outbox.record([message("a"), message("b")], ["t", "other"], {})
    outbox.postpone(outbox.first("t").number, 110.0)
    assert outbox.first("t").message.id == "b"
    assert outbox.first("other").message.id == "a"
    now = 111.0
    assert (outbox.first("t").message.id, outbox.first("t").attempts) == ("a", 1)
    outbox.close()


WRITER = """
import sys
from pathlib import Path
from nudenet_tools.webhooks.outbox import Message, Outbox
outbox = Outbox(Path(sys.argv[1]))
first = outbox.states().get("count", 0)
for number in range(first, first + 100_000):
    outbox.record([Message(f"{number}", "start", b"%d" % number)], ["t"], {"count": number + 1})
    print(number, flush=True)
"""


def test_a_kill_leaves_messages_and_state_as_one(tmp_path):
    """Killed three times while it writes: each message that was reported is there, and the state counts them."""
    reported = 0
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, tmp_path / "o"], stdout=subprocess.PIPE, text=True, cwd=ROOT / "tools"
        ) as process:
            for _ in range(10):
                reported = int(process.stdout.readline()) + 1
            process.send_signal(signal.SIGKILL)
            reported += len(process.stdout.read().split("\n")) - 1
    outbox = Outbox(tmp_path / "o")
    count = outbox.states()["count"]
    assert reported <= count <= reported + 1  # the last one may have been killed before its report
    assert ids(outbox) == [str(number) for number in range(count)]
    outbox.close()
