"""Listings of a bulk run, and the bytes behind a name."""

import base64
import codecs
import http.server
import threading

import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from data.vectors import table
from helpers.hostile import encode, photo
from nudenet_client import Detections, PictureError
from nudenet_tools.bulk import sources
from nudenet_tools.bulk.parts import Parts

JPEG = encode(photo(96, 64))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listed(source, **options):
    return list(sources.listing(str(source), **options))


# --- folders and globs ---


@pytest.mark.parametrize("name", ["holiday [2019]", "what?", "stars*", "list.txt", "caf\udce9", "x:y"])
def test_a_folder_is_a_folder_whatever_its_name_looks_like(here, name):
    (here / name).mkdir()
    (here / name / "a.jpg").write_bytes(JPEG)
    (found,) = listed(name)
    assert sources.read(found) == JPEG
    assert listed(here / name) == [found]


def test_names_that_are_no_text_can_be_listed_read_and_written(here):
    (here / "in").mkdir()
    wanted = ["a.jpg", "caf\udce9.jpg", "line\nbreak.jpg", "100%41.jpg"]
    for name in wanted:
        (here / "in" / name).write_bytes(JPEG)
    found = listed("in")
    assert len(found) == 4
    assert all(sources.read(name) == JPEG for name in found)
    parts = Parts(str(here / "out"))
    parts.write(found, [Detections.failed("no")] * 4)
    assert parts.done() == set(found)
    assert listed(f"file://{here}/in") == found


@pytest.mark.parametrize("source", ["empty", "*.png", "texts", "empty.txt"])
def test_nothing_to_do_is_an_error(here, source):
    (here / "empty").mkdir()
    (here / "texts").mkdir()
    (here / "texts" / "notes.txt").touch()
    (here / "empty.txt").write_text("\n\n")
    with pytest.raises(sources.SourceError, match="no pictures there"):
        listed(source)


def test_what_is_left_out_is_said(here):
    (here / "in").mkdir()
    for name in ("a.jpg", "b.mp4", "c.txt"):
        (here / "in" / name).write_bytes(JPEG)
    said = []
    assert listed("in", note=said.append) == [str(here / "in" / "a.jpg")]
    assert said == ["in: 2 files left out: 1 .txt, 1 .mp4"]


def test_globs_and_single_files(here):
    for name in ("a1.jpg", "a2.jpg", "b.jpg"):
        (here / name).write_bytes(JPEG)
    assert listed("a?.jpg") == ["a1.jpg", "a2.jpg"]
    assert listed("b.jpg") == ["b.jpg"]
    with pytest.raises(sources.SourceError, match="a glob needs quotes"):
        listed("c.jpg")


# --- listings ---


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a.jpg\nä b.jpg\n".encode(), ["a.jpg", "ä b.jpg"]),
        (codecs.BOM_UTF8 + b"a.jpg\r\nb.jpg\r\n", ["a.jpg", "b.jpg"]),
        ("ä.jpg\nb.jpg".encode("utf-16"), ["ä.jpg", "b.jpg"]),
        ("ä.jpg\r\n".encode("utf-16-le").join([codecs.BOM_UTF16_LE, b""]), ["ä.jpg"]),
        ("ä.jpg\nb.jpg".encode("utf-32"), ["ä.jpg", "b.jpg"]),
        (b"a.jpg\rb.jpg\r", ["a.jpg", "b.jpg"]),
        (b"  \n\na.jpg\n", ["a.jpg"]),
        ("a\u2028b.jpg\nc\x0cd.jpg\n".encode(), ["a\u2028b.jpg"]),
    ],
)
def test_listings_in_any_encoding(here, content, expected):
    (here / "list.txt").write_bytes(content)
    assert listed("list.txt")[: len(expected)] == expected


def test_a_listing_in_utf_16_without_its_mark_is_refused(here):
    (here / "list.txt").write_bytes("a.jpg\n".encode("utf-16-le"))
    with pytest.raises(sources.SourceError, match="zero bytes, as UTF-16 without its mark does: save it as UTF-8"):
        listed("list.txt")


def test_a_latin_1_listing_finds_names_of_either_kind(here):
    (here / "list.txt").write_bytes("café.jpg\nthé.jpg\nna.jpg\n".encode("latin-1"))
    (here / "café.jpg").write_bytes(JPEG)  # copied with its name in UTF-8
    (here / "th\udce9.jpg").write_bytes(JPEG)  # with the bytes that it had
    found = listed("list.txt")
    assert found[0] == "café.jpg"
    assert [sources.read(name) for name in found[:2]] == [JPEG, JPEG]
    with pytest.raises(PictureError, match="No such file"):
        sources.read(found[2])


def test_parquet_listings(here):
    names = pa.table({"source": ["a.jpg", None, "b.jpg"], "size": [1, 2, 3]})
    pyarrow.parquet.write_table(names, "list.parquet")
    assert listed("list.parquet") == ["a.jpg", "b.jpg"]
    with pytest.raises(sources.SourceError, match="must hold names as text, it holds int64"):
        listed("list.parquet", column="size")
    with pytest.raises(sources.SourceError, match=r"no column 'path', but \['source', 'size'\]"):
        listed("list.parquet", column="path")
    with pytest.raises(sources.SourceError, match="no listing"):
        listed("missing.parquet")
    for content in (b"", b"PAR1 and no more"):
        (here / "damaged.parquet").write_bytes(content)
        with pytest.raises(sources.SourceError, match="is damaged, or no Parquet file"):
            listed("damaged.parquet")


def test_listings_and_outputs_need_a_name_in_utf_8(here):
    (here / "caf\udce9.txt").write_text("a.jpg")
    with pytest.raises(sources.SourceError, match="a name in UTF-8"):
        listed("caf\udce9.txt")
    with pytest.raises(sources.SourceError, match="a name in UTF-8"):
        Parts(str(here / "caf\udce9"))


# --- reading ---


def test_one_odd_file_is_that_files_trouble(here):
    bad = {
        "anim.gif": "2 frames",
        "deep.tif": "floats",
        "cut.png": "damaged PNG",
        "missing.jpg": "No such file",
    }
    frames = [Image.new("L", (8, 8), shade) for shade in (0, 255)]
    frames[0].save(here / "anim.gif", save_all=True, append_images=frames[1:])
    Image.new("F", (8, 8), 7.5).save(here / "deep.tif")
    (here / "cut.png").write_bytes(encode(photo(96, 64), format="PNG")[:-300])
    for name, reason in bad.items():
        with pytest.raises(PictureError, match=reason):
            sources.read(name)
    for vector in table.others():
        (here / "picture").write_bytes(vector.data)
        if vector.refused:
            with pytest.raises(PictureError, match="viewers disagree"):
                sources.read("picture")
            continue
        assert sources.read("picture").startswith(b"\xff\xd8\xff")
    (here / "text.jpg").write_text("hello")
    assert sources.read("text.jpg") == b"hello"  # the detector says what is wrong with it


def test_addresses_are_read_without_a_proxy_on_this_machine_only(here, monkeypatch):
    asked, authorization = [], []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            authorization.append(self.headers["Authorization"])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(JPEG)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        port = server.server_address[1]
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("no_proxy", "")
        assert sources.read(f"http://127.0.0.1:{port}/a.jpg") == JPEG
        assert sources.read("http://pictures.invalid/b.jpg") == JPEG
        assert sources.read(f"HTTP://guest:s3%2Fcret@127.0.0.1:{port}/größe 1.jpg?a=b%20c") == JPEG
        server.shutdown()
    assert asked == ["/a.jpg", "http://pictures.invalid/b.jpg", "/gr%C3%B6%C3%9Fe%201.jpg?a=b%20c"]
    assert authorization == [None, None, f"Basic {base64.b64encode(b'guest:s3/cret').decode()}"]
    monkeypatch.delenv("http_proxy")
    with pytest.raises(PictureError, match=r"cannot be read: its address is not valid$"):
        sources.read("http://guest:s3/cret@127.0.0.1/a.jpg")
    for address in ("http://127.0.0.1:1/a.jpg", "http://[bad/a.jpg", "http://127.0.0.1:x/a.jpg", "https:///a.jpg"):
        with pytest.raises(PictureError, match="cannot be read"):
            sources.read(address)
