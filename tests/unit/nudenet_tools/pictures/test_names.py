"""Names of files as text, and what is found below a folder."""

import json
import os
from collections import Counter

import pytest
from PIL import Image

from nudenet_tools.pictures import files, folders, names

ODD = ["caf\udce9.jpg", "line\nbreak.jpg", "esc\x1b[31m.jpg", "del\x7f.jpg", "nel\x85.jpg"]
PLAIN = ["a.jpg", "café.jpg", "漢字.jpg", "holiday [2019].jpg", "100%.jpg", "a b.jpg", "x:y.jpg", "-n.jpg"]


@pytest.mark.parametrize("name", ODD)
def test_names_that_are_no_text_become_addresses_and_come_back(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    text = names.as_text(name)
    assert text.startswith("file:///")
    json.dumps(text, ensure_ascii=False).encode()
    assert names.as_path(text) == str(tmp_path / name)
    assert names.as_text(names.as_path(text)) == text


@pytest.mark.parametrize("name", PLAIN)
def test_other_names_stay_as_they_are(name):
    assert names.as_text(name) == names.as_path(name) == name


def picture(path):
    Image.new("RGB", (8, 8)).save(path, "PNG")


def test_everything_below_a_folder_is_found_or_counted(tmp_path):
    below = tmp_path / "below"
    below.mkdir()
    for name in ("b.PNG", "a.jpg", "below/c.avif", "no_suffix", "caf\udce9.gif"):
        picture(tmp_path / name)
    (tmp_path / "movie").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(20))
    (tmp_path / "cut").write_bytes(b"\xff\xd8")
    for name in ("notes.txt", "more.txt", "v.mp4", "README", "below/x.bin"):
        (tmp_path / name).write_text("text")
    (below / "again").symlink_to(tmp_path)
    (below / "nowhere.jpg").symlink_to(tmp_path / "missing.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    elsewhere.mkdir()
    picture(elsewhere / "far.png")
    (tmp_path / "link").symlink_to(elsewhere)
    found = folders.search(tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in found.pictures] == [
        "a.jpg",
        "b.PNG",
        "below/c.avif",
        "caf\udce9.gif",
        "link/far.png",
        "no_suffix",
    ]
    assert [path.name for path in found.videos] == ["movie", "v.mp4"]
    assert found.others == {".txt": 2, "": 2, ".bin": 1}
    assert found.left_out() == "5 files left out: 2 without suffix, 2 .txt, 1 .bin"
    assert found.left_out(videos=True).startswith("7 files left out: ")


def test_what_is_left_out_is_said_shortly():
    many = Counter({f".{letter}": 1 for letter in "abcdefg"})
    assert folders.Found(others=many).left_out().endswith("1 .d, 1 .e, ...")
    assert folders.Found(others=Counter({".txt": 1})).left_out() == "1 file left out: 1 .txt"
    assert folders.Found().left_out() == ""


def test_folders_on_the_command_line(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "notes.txt").touch()
    said = []
    sources = files.find([str(tmp_path), "caf\udce9.jpg", "-"], said.append)
    assert [str(source.relative) for source in sources] == ["a.jpg", "a-2.jpg", "caf\udce9.jpg", "stdin.jpg"]
    assert sources[2].shown == f"file://{os.getcwd()}/caf%E9.jpg"  # noqa: PTH109
    assert said == [f"{tmp_path}: 1 file left out: 1 .txt"]
    for name, reason in (("empty", "it is empty"), ("texts", "1 file left out: 1 .txt")):
        (tmp_path / name).mkdir()
        if name == "texts":
            (tmp_path / name / "a.txt").touch()
        with pytest.raises(FileNotFoundError, match=f"no pictures there; {reason}"):
            files.find([str(tmp_path / name)])
