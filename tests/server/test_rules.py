"""tools/stream.py --rules against the real server: events of a moving clip, delivered to a receiver that fails."""

import datetime
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

import clips
from container import repository
from helpers.brute_force import brute_force
from helpers.client_packages import NODE_CLIENT, install_node_dependencies
from helpers.receiver import SECRET, receiver
from nudenet_tools import ROOT
from nudenet_tools.rules.rule_file import read
from nudenet_tools.webhooks.delivery import NotDelivered
from nudenet_tools.webhooks.http import Webhook
from nudenet_tools.webhooks.outbox import Message
from nudenet_tools.webhooks.signing import Signer

RULES = """
lost_after = 60
policy = "standard"

[[rule]]
name = "face"
classes = ["FACE_FEMALE"]
min_confidence = 0.5
hits = 3
frames = 5
end_after = 0.4
update_every = 0.5
escalation = [{ after = 0.9, level = "long" }]

[[rule]]
name = "blocked"
verdict = "block"
frames = 1
"""


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A face, a rocket, a face: MJPEG at 25 FPS, one second each."""
    folder = tmp_path_factory.mktemp("rules")
    clips.write(folder / "face.mjpeg", seconds=1, width=640, height=360)
    clips.write(folder / "other.mjpeg", ROOT / "tests/data/rocket.jpg", seconds=1, width=640, height=360)
    face, other = ((folder / f"{name}.mjpeg").read_bytes() for name in ("face", "other"))
    (folder / "clip.mjpeg").write_bytes(face + other + face)
    (folder / "rules.toml").write_text(RULES)
    return folder / "clip.mjpeg"


def start(server, clip, outbox, hook, *arguments):
    command = [
        sys.executable, ROOT / "tools" / "stream.py", "--url", server.grpc_url, clip,
        "--rules", clip.with_name("rules.toml"), "--outbox", outbox,
        "--webhook", hook.url, "--webhook-allow-http", "--webhook-allow-private", *arguments,
    ]  # fmt: skip
    environment = os.environ | {"NUDENET_WEBHOOK_SECRET": SECRET}
    return subprocess.Popen(
        [str(part) for part in command], env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True
    )


def seconds(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def test_events_equal_a_brute_force_evaluation_of_the_served_frames(server, clip, tmp_path):
    lines, written = tmp_path / "frames.jsonl", tmp_path / "events.jsonl"
    with receiver(lambda number: 204 if number % 2 else 500) as hook:
        process = start(
            server, clip, tmp_path / "o", hook, "--every-frame", "--json", lines, "--rule-events", written, "--evidence"
        )
        text = process.communicate(timeout=120)[1]
        assert process.returncode == 0, text
        assert hook.problems == []
    rule = read(clip.with_name("rules.toml"), repository.labels()).rules[0]
    frames = []
    for line in lines.read_text().splitlines():
        frame = json.loads(line)
        found = [one["confidence"] for one in frame["detections"] if one["label"] == "FACE_FEMALE"]
        frames.append((frame["time"], max((value for value in found if value >= 0.5), default=None)))
    assert len(frames) >= 70
    expected = brute_force(rule, frames)
    events = [json.loads(line) for line in written.read_text().splitlines()]
    assert [kind for kind, *_ in expected].count("start") == 2
    *told, last = events
    assert (last["type"], last["data"]["reason"]) == ("nudenet.event.end", "stream_ended")
    assert [
        (one["type"].rpartition(".")[2], one["data"].get("reason", ""), one["data"]["level"], one["data"]["hits"])
        for one in told
    ] == [(kind, reason, level, hits) for kind, _, reason, level, _, hits in expected]
    begin = seconds(told[0]["time"]) - expected[0][1]
    for one, (_, at, _, _, best, _) in zip(told, expected, strict=True):
        assert seconds(one["time"]) - begin == pytest.approx(at, abs=0.005)
        assert one["data"]["best"]["confidence"] == pytest.approx(best)
        assert one["data"]["picture"]["content_type"] == "image/jpeg"
    # The receiver has what it accepted in the time that was left; each with the content that the file has.
    contents = {one["id"]: one for one in events}
    assert hook.received
    for name, bodies in hook.received.items():
        assert [json.loads(body) for body in bodies] == [contents[name]]


def test_an_open_event_survives_a_kill(server, clip, tmp_path):
    """Killed while the face is there; the next run goes on with the same event and delivers what was not."""
    with receiver(lambda number: 204 if number % 2 else None) as hook:
        process = start(server, clip, tmp_path / "o", hook)
        assert hook.wait_for(lambda: bool(hook.attempts))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        first = json.loads(hook.attempts[0][1])
        assert (first["type"], hook.received) == ("nudenet.event.start", {})
        process = start(server, clip, tmp_path / "o", hook, "--every-frame")
        text = process.communicate(timeout=120)[1]
        assert process.returncode == 0, text
        assert hook.problems == []
    received = [json.loads(body) for bodies in hook.received.values() for body in bodies]
    assert len(received) == len(hook.received)
    events = {}
    for one in sorted(received, key=lambda one: one["data"]["sequence"]):
        events.setdefault(one["data"]["event"], []).append(one)
    assert first["data"]["event"] in events
    assert first["id"] in hook.received


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["--webhook", "https://example.com"], 2, "--rules"),
        (["--rules", "missing.toml"], 1, "missing.toml: "),
        (["--rules", "RULES", "--webhook", "http://example.com"], 1, "NUDENET_WEBHOOK_SECRET"),
        (["--rules", "RULES", "--json", "-"], 2, "both"),
    ],
)
def test_mistakes_are_said_at_once(clip, tmp_path, arguments, status, text):
    arguments = [str(clip.with_name("rules.toml")) if one == "RULES" else one for one in arguments]
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "stream.py", clip, "--outbox", tmp_path / "o", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode == status
    assert text in done.stderr


@pytest.mark.parametrize(("language", "command"), [("py", [sys.executable, "-u"]), ("mjs", ["node"])])
def test_the_receivers_in_the_documentation(tmp_path, free_tcp_port, language, command):
    """What is signed with the secret is taken, anything else is answered with 401.

    Python's receiver checks with the library that signs, Node's with another implementation of the standard.
    """
    if language == "mjs":
        install_node_dependencies()
        (tmp_path / "node_modules").symlink_to(NODE_CLIENT / "node_modules")
    (code,) = re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / "rules.md").read_text(), re.DOTALL)
    (tmp_path / f"receiver.{language}").write_text(code.replace("8090", str(free_tcp_port)))
    event = {"type": "nudenet.event.start", "data": {"stream": "größer", "event": "e"}}
    message = Message("e.0", "start", json.dumps(event, ensure_ascii=False).encode())

    def send(secret):
        Webhook(f"http://127.0.0.1:{free_tcp_port}/", Signer([secret]), allow_http=True, allow_private=True)(message)

    command = [*command, tmp_path / f"receiver.{language}"]
    # A session of its own: node of the virtual environment is a program that starts another.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            end = time.monotonic() + 60
            while True:
                try:
                    send(SECRET)
                    break
                except NotDelivered as error:
                    assert "answered" not in str(error)
                    assert time.monotonic() < end
                    time.sleep(0.1)
            assert process.stdout.readline() == "nudenet.event.start größer e\n"
            with pytest.raises(NotDelivered, match="answered 401"):
                send(SECRET.replace("MDEy", "MDEx"))
        finally:
            os.killpg(process.pid, signal.SIGKILL)
