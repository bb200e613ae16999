"""Signed deliveries to real receivers: one that fails half of the time, kills, redirects, private addresses, TLS."""

import base64
import functools
import io
import json
import random
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading

import pytest

from helpers.receiver import SECRET, receiver, signature
from helpers.tls_files import Authority
from nudenet_tools import ROOT
from nudenet_tools.webhooks.delivery import Delivery, JsonLines, NotDelivered, back_off
from nudenet_tools.webhooks.http import TargetError, Webhook, is_public
from nudenet_tools.webhooks.outbox import Message, Outbox
from nudenet_tools.webhooks.signing import SecretError, Signer, signer

OTHER = "whsec_" + base64.b64encode(b"f" * 24).decode()


def message(number, kind="update"):
    return Message(f"event.{number}", kind, json.dumps({"number": number, "text": "größer"}).encode())


def local(url, **options):
    return Webhook(url, Signer([SECRET]), allow_http=True, allow_private=True, **options)


# --- secrets ---


def test_signatures_are_those_of_the_standard():
    """The example of the Standard Webhooks specification's own libraries, and two keys while a secret is replaced."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = Signer([secret, OTHER]).headers("msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', 1614265330.9)
    expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert headers["webhook-timestamp"] == "1614265330"
    assert headers["webhook-signature"].split() == [
        expected,
        signature(OTHER, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}'),
    ]


def test_secrets_come_from_the_environment_or_a_file(tmp_path):
    (tmp_path / "secrets").write_text(f"{SECRET}\n{OTHER}\n")
    both = signer(tmp_path / "secrets", {"NUDENET_WEBHOOK_SECRET": "unused"}).headers("a", b"", 1)
    assert len(both["webhook-signature"].split()) == 2
    one = signer(None, {"NUDENET_WEBHOOK_SECRET": SECRET}).headers("a", b"", 1)
    assert both["webhook-signature"].split()[0] == one["webhook-signature"]


@pytest.mark.parametrize("secret", ["", "hunter2hunter2", "whsec_hunter2hunter2", "whsec_" + "A" * 400, SECRET[6:]])
def test_a_bad_secret_is_refused_and_not_shown(tmp_path, secret):
    (tmp_path / "secrets").write_text(secret)
    with pytest.raises(SecretError) as caught:
        signer(tmp_path / "secrets", {})
    assert "hunter2" not in str(caught.value)
    with pytest.raises(SecretError):
        signer(None, {"NUDENET_WEBHOOK_SECRET": secret})
    with pytest.raises(SecretError, match="No such file"):
        signer(tmp_path / "missing", {})


# --- addresses ---


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://example.com/", "--webhook-allow-http"),
        ("ftp://example.com/", "must begin with https://"),
        ("https:///path", "must begin with https://"),
        ("https://user:hunter2@example.com/", "no user, password"),
        ("https://example.com/#part", "fragment"),
        ("https://example.com:port/", "not a URL"),
        ("https://[::1/", "not a URL"),
    ],
)
def test_addresses_that_are_refused(url, text):
    with pytest.raises(TargetError, match=text) as caught:
        Webhook(url, Signer([SECRET]))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::a00:1", False),
        ("2002:a00:1::", False),
        ("64:ff9b::808:808", True),
        ("64:ff9b:1::a00:1", False),
        ("::ffff:0:10.0.0.1", False),
        ("::10.0.0.1", False),
        ("2001:0:a00:1::", False),
        ("fec0::1", False),
    ],
)
def test_public_addresses(address, public):
    assert is_public(address) is public


def test_a_private_target_gets_nothing_unless_allowed():
    with receiver() as hook:
        with pytest.raises(NotDelivered, match="not a public address; pass --webhook-allow-private"):
            Webhook(hook.url, Signer([SECRET]), allow_http=True)(message(1))
        assert hook.attempts == []
        local(hook.url)(message(1))
        assert hook.received == {"event.1": {message(1).body}}
        assert hook.headers[0]["Content-Type"] == "application/cloudevents+json; charset=utf-8"
        assert hook.headers[0]["Host"] == hook.url.split("/")[2]
        assert hook.problems == []


def test_redirects_are_failures():
    with receiver(lambda number: 302) as hook:
        with pytest.raises(NotDelivered, match="answered 302; redirects are not followed"):
            local(hook.url)(message(1))
        assert len(hook.attempts) == 1


@pytest.mark.parametrize(("status", "all_wait", "after"), [(400, False, None), (429, True, 7.0), (503, True, None)])
def test_who_waits_after_a_failure(status, all_wait, after):
    with receiver(lambda number: status) as hook, pytest.raises(NotDelivered) as caught:
        local(hook.url)(message(1))
    assert (caught.value.all_wait, caught.value.retry_after) == (all_wait, after)


def test_nobody_listens():
    with receiver() as hook:
        pass
    with pytest.raises(NotDelivered) as caught:
        local(hook.url)(message(1))
    assert caught.value.all_wait


def test_tls_is_checked_against_the_name(tmp_path, monkeypatch):
    """localhost is looked up and connected to as an address; the certificate must still be that of the name."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority = Authority(tmp_path, "ours")
    context.load_cert_chain(*authority.issue("receiver"))
    with receiver(context=context) as hook:
        local(hook.url, ca=authority.certificate)(message(1))
        assert hook.received == {"event.1": {message(1).body}}
        with pytest.raises(NotDelivered, match="CERTIFICATE_VERIFY_FAILED"):
            local(hook.url)(message(2))
        lookup = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", lambda host, *args, **kw: lookup("127.0.0.1", *args, **kw))
        with pytest.raises(NotDelivered, match="CERTIFICATE_VERIFY_FAILED"):
            local(hook.url.replace("localhost", "other.example"), ca=authority.certificate)(message(3))
        assert len(hook.attempts) == 1


# --- retries ---


def test_pauses_grow_to_five_minutes():
    for attempts, full in [(0, 1), (1, 2), (5, 32), (9, 300), (1000, 300)]:
        assert all(full / 2 <= back_off(attempts) <= full for _ in range(20))


def test_a_receiver_that_is_down_for_a_minute(tmp_path):
    """On a clock of its own: few attempts while it is down, then everything in order."""
    now, arrived, notes, attempts = 0.0, [], [], 0

    def target(one):
        nonlocal attempts
        attempts += 1
        if now < 60.0:
            raise NotDelivered("down", all_wait=True)
        arrived.append(one.id)

    outbox = Outbox(tmp_path / "o", clock=lambda: now)
    delivery = Delivery(outbox, "t", target, notes.append, clock=lambda: now)
    outbox.record([message(number) for number in range(20)], ["t"], {})
    while outbox.waiting():
        now += delivery.delay()
        delivery.attempt()
        assert now < 130
    assert arrived == [f"event.{number}" for number in range(20)]
    assert 20 + 5 <= attempts <= 20 + 8
    assert notes == ["down; it is tried again", "t: delivered again"]
    outbox.close()


def test_one_refused_message_does_not_hold_up_the_others(tmp_path):
    arrived = []

    def target(one):
        if one.id == "event.0":
            raise NotDelivered("400")
        arrived.append(one.id)

    outbox = Outbox(tmp_path / "o", clock=lambda: 5.0)
    delivery = Delivery(outbox, "t", target, lambda text: None, clock=lambda: 5.0)
    outbox.record([message(number) for number in range(3)], ["t"], {})
    for _ in range(3):
        delivery.attempt()
    assert arrived == ["event.1", "event.2"]
    assert outbox.waiting() == 1
    outbox.close()


def test_json_lines(tmp_path):
    file = io.StringIO()
    outbox = Outbox(tmp_path / "o")
    delivery = Delivery(outbox, "lines", JsonLines(file), lambda text: None)
    outbox.record([message(1), message(2)], ["lines"], {})
    delivery.start()
    delivery.finish(60.0)
    assert [json.loads(line)["number"] for line in file.getvalue().splitlines()] == [1, 2]
    assert outbox.waiting() == 0
    outbox.close()


def test_the_end_waits_for_a_retry_that_is_near_and_for_no_other(tmp_path):
    arrived = []

    def target(one):
        if one.id == "event.1" or not arrived:
            arrived.append("failed")
            raise NotDelivered("400")
        arrived.append(one.id)

    outbox = Outbox(tmp_path / "o")
    pauses = iter([0.05, 3600.0])
    delivery = Delivery(outbox, "t", target, lambda text: None, pause=lambda attempts: next(pauses))
    outbox.record([message(0), message(1)], ["t"], {})
    delivery.start()
    delivery.finish(60.0)
    assert sorted(arrived) == ["event.0", "failed", "failed"]
    assert outbox.waiting() == 1
    outbox.close()


class FullDisk(Outbox):
    """Every method in `fails` does."""

    fails: tuple[str, ...] = ()

    def _check(self, name):
        if name in self.fails:
            raise sqlite3.OperationalError("database or disk is full")

    def first(self, target):
        self._check("first")
        return super().first(target)

    def delivered(self, number):
        self._check("delivered")
        super().delivered(number)

    def postpone(self, number, due):
        self._check("postpone")
        super().postpone(number, due)


@pytest.mark.parametrize("fails", ["first", "delivered", "postpone"])
def test_a_full_disk_ends_nothing_and_sends_nothing_again_and_again(tmp_path, fails):
    arrived, noted, pauses = [], threading.Semaphore(0), []

    def target(one):
        arrived.append(one.id)
        if fails == "postpone" and outbox.fails:
            raise NotDelivered("400")

    def pause(attempts):
        pauses.append(attempts)
        return 0.01

    outbox = FullDisk(tmp_path / "o")
    delivery = Delivery(outbox, "t", target, lambda text: noted.release(), pause=pause)
    outbox.record([message(0)], ["t"], {})
    outbox.fails = (fails,)
    delivery.start()
    for _ in range(3):
        assert noted.acquire(timeout=60)
    outbox.fails = ()
    delivery.finish(60.0)
    assert outbox.waiting() == 0
    assert {1, 2} <= set(pauses)  # less and less often
    if fails != "postpone":
        assert arrived == ["event.0"]
    outbox.close()


SENDER = """
import sys
import time
from pathlib import Path
from nudenet_tools.webhooks.delivery import Delivery
from nudenet_tools.webhooks.http import Webhook
from nudenet_tools.webhooks.outbox import Outbox
from nudenet_tools.webhooks.signing import signer
target = Webhook(sys.argv[2], signer(None), allow_http=True, allow_private=True)
outbox = Outbox(Path(sys.argv[1]))
delivery = Delivery(outbox, "webhook", target, print, pause=lambda attempts: 0.01)
delivery.start()
while outbox.waiting():
    time.sleep(0.02)
"""


def test_a_receiver_that_fails_half_of_the_time_and_kills_in_between(tmp_path):
    """Every message arrives at least once; each id has one content; what was not accepted comes again."""
    dice = random.Random(19)
    outbox = Outbox(tmp_path / "o")
    outbox.record([message(number) for number in range(60)], ["webhook"], {})
    outbox.close()

    with receiver(lambda number: dice.choice([204, 200, 201, 204, 500, 400, 302, None])) as hook:
        environment = {"NUDENET_WEBHOOK_SECRET": SECRET, "PATH": "/usr/bin:/bin"}
        command = [sys.executable, "-c", SENDER, tmp_path / "o", hook.url]
        for wanted in (20, 40):
            with subprocess.Popen(command, cwd=ROOT / "tools", env=environment) as process:
                assert hook.wait_for(functools.partial(hook.has_attempts, wanted))
                process.send_signal(signal.SIGKILL)
        subprocess.run(command, cwd=ROOT / "tools", env=environment, check=True, timeout=60)
    assert hook.received == {message(number).id: {message(number).body} for number in range(60)}
    assert {body for name, body, _ in hook.attempts if name == "event.7"} == {message(7).body}
    assert len(hook.attempts) > 60
    assert hook.problems == []
    outbox = Outbox(tmp_path / "o")
    assert outbox.waiting() == 0
    outbox.close()
