"""The front proxy's configuration: the same in compose and Kubernetes, with the limit that everything is sized for."""

from __future__ import annotations

import re
from pathlib import Path

from container import limits

NGINX = Path(__file__).parents[3] / "deploy" / "nginx"
CONF = (NGINX / "nginx.conf").read_text()


def test_messages_are_limited_to_what_shared_memory_is_sized_for():
    assert re.findall(r"client_max_body_size (\d+)m;", CONF) == [str(limits.MESSAGE_BYTES >> 20)]
    assert f"exceeds {limits.MESSAGE_BYTES >> 20} MiB" in CONF


def test_nothing_passes_unencrypted_or_without_a_known_key():
    assert re.findall(r"^\s*listen (.+);", CONF, re.MULTILINE) == ["8443 ssl http2", "8444 ssl http2"]
    assert CONF.count("grpc_pass") == CONF.count("proxy_pass ") == 1  # the gateway asks for keys itself
    location, _ = re.findall(r"location ~ .*?\n    }", CONF, re.DOTALL)
    assert location.index('if ($client_is_known = "") { return 401; }') < location.index("grpc_pass")


def test_both_places_differ_in_names_only():
    names = re.compile(r"#.*|default [\w.-]+|resolver \S+|server \S+|valid=\S+")
    compose, kubernetes = ((NGINX / f"servers-{place}.conf").read_text() for place in ("compose", "kubernetes"))
    assert names.sub("", compose) == names.sub("", kubernetes)
