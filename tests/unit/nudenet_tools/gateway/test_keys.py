"""API keys: what is stored, who is known, and how a file changes under a running gateway."""

from __future__ import annotations

import pytest

from nudenet_tools.gateway import keys


def write(path, *lines):
    """As an editor does: a new file in place of the old one."""
    new = path.with_suffix(".new")
    new.write_text("\n".join(lines) + "\n")
    new.replace(path)


def test_keys_are_random_and_only_their_hash_is_stored():
    first, second = keys.new_key(), keys.new_key()
    assert first != second
    assert len(first) >= 43  # 256 bits in base64
    assert first not in keys.line(first, "a")


def test_keys_are_replaced_without_a_restart(tmp_path):
    path, old, new = tmp_path / "keys", keys.new_key(), keys.new_key()
    write(path, "# ours", "", keys.line(old, "backend"))
    file = keys.KeyFile(path)
    assert file.name(old) == "backend"
    assert file.name(new) is file.name("") is file.name("\udcff") is None
    write(path, keys.line(old, "backend"), keys.line(new, "backend-2"))
    assert (file.name(old), file.name(new)) == ("backend", "backend-2")
    write(path, keys.line(new, "backend-2"))
    assert (file.name(old), file.name(new)) == (None, "backend-2")


@pytest.mark.parametrize(
    "content", ["", "# nobody", "secret backend", "0" * 63 + " backend", "0" * 64, "0" * 64 + " a b"]
)
def test_a_wrong_file_is_refused_and_changes_nothing_later(tmp_path, content):
    path, key = tmp_path / "keys", keys.new_key()
    write(path, content)
    with pytest.raises(keys.KeyFileError, match="keys"):
        keys.KeyFile(path)
    write(path, keys.line(key, "backend"))
    file = keys.KeyFile(path)
    write(path, content)
    assert file.name(key) == "backend"
    assert "keys" in file.error
    write(path, keys.line(key, "again"))
    assert (file.name(key), file.error) == ("again", "")
    write(path, content)
    assert not file.is_current()  # asked before any key is
    write(path, keys.line(key, "at-last"))
    assert file.is_current()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(keys.KeyFileError, match=r"keys: cannot be read: No such file"):
        keys.KeyFile(tmp_path / "keys")


def test_new_keys_are_added_to_the_file(tmp_path):
    path = tmp_path / "keys"
    first = keys.add(path, "backend")
    path.write_text(f"# ours\n{path.read_text().strip()}")  # without a line end, as some editors leave it
    second = keys.add(path, "backend-2")
    file = keys.KeyFile(path)
    assert (file.name(first), file.name(second)) == ("backend", "backend-2")
    before = path.read_bytes()
    for name in ("", "a b", "ä", "a" * 65, "a\nb", "a#"):
        with pytest.raises(keys.KeyFileError, match="a name has 1 to 64"):
            keys.add(path, name)
    assert path.read_bytes() == before
    with pytest.raises(keys.KeyFileError, match="cannot be written: No such file"):
        keys.add(tmp_path / "missing" / "keys", "a")
