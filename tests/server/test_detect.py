"""tools/detect.py against the real server, as a person runs it."""

import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import detect
from data.vectors import coloured, table
from helpers import profiles
from helpers.hostile import encode
from nudenet_client import Client
from nudenet_client.pictures import upright_pixels
from nudenet_tools import ROOT
from nudenet_tools.pictures import names

ORIENTATION, CAMERA_MAKER = 0x0112, 0x010F


@pytest.fixture
def run(server, monkeypatch):
    """Runs detect.py with arguments; ports come from the environment, as with `make serve`."""
    monkeypatch.setenv("GRPC_PORT", str(server.ports.grpc))
    monkeypatch.setenv("HTTP_PORT", str(server.ports.http))

    def call(*arguments, stdin=b""):
        return CliRunner().invoke(detect.app, [str(argument) for argument in arguments], input=stdin)

    return call


@pytest.fixture
def folder(tmp_path, astronaut):
    """Two good pictures, one of them below, a file that is no picture by name and one by content."""
    (tmp_path / "in" / "below").mkdir(parents=True)
    (tmp_path / "in" / "a.jpg").write_bytes(astronaut)
    (tmp_path / "in" / "below" / "a.jpg").write_bytes(astronaut)
    (tmp_path / "in" / "notes.txt").write_text("not for us")
    (tmp_path / "in" / "broken.jpg").write_text("hello")
    return tmp_path / "in"


def turned(picture):
    """The JPEG stored on its side with the EXIF orientation that undoes it, and the camera's name."""
    exif, out = Image.Exif(), io.BytesIO()
    exif[ORIENTATION], exif[CAMERA_MAKER] = 6, "ACME"
    with Image.open(io.BytesIO(picture)) as opened:
        opened.rotate(90, expand=True).save(out, "JPEG", exif=exif, quality=95)
    return out.getvalue()


def lines(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_table_for_people(run, folder):
    result = run(folder / "a.jpg")
    assert result.exit_code == 0
    assert "1280x720" in result.stdout
    assert "FACE_FEMALE" in result.stdout


def test_as_a_program_from_standard_input(server, astronaut):
    command = [sys.executable, ROOT / "tools" / "detect.py", "-", "--json", "--url", server.grpc_url]
    result = subprocess.run(command, input=astronaut, capture_output=True, check=True)
    (answer,) = [json.loads(line) for line in result.stdout.splitlines()]
    assert answer["image"] == "-"
    assert [found["label"] for found in answer["detections"]] == ["FACE_FEMALE"]


@pytest.mark.parametrize("protocol", [[], ["--http"]], ids=["grpc", "http"])
def test_bad_files_get_a_line_each_and_the_others_an_answer(run, folder, protocol):
    result = run(folder, "/no/such.jpg", "--json", *protocol)
    assert result.exit_code == 1
    answers = {answer["image"]: answer for answer in lines(result)}
    assert [list(answers[str(folder / name)]) for name in ("a.jpg", "below/a.jpg")] == [
        ["image", "width", "height", "detections"]
    ] * 2
    assert "not a JPEG" in answers[str(folder / "broken.jpg")]["error"]
    reasons = result.stderr.splitlines()
    assert len(reasons) == 3
    assert reasons[0].endswith("1 file left out: 1 .txt")
    assert str(folder / "broken.jpg") in reasons[1]
    assert "/no/such.jpg: cannot be read: No such file" in reasons[2]


@pytest.mark.parametrize("protocol", [[], ["--http"]], ids=["grpc", "http"])
def test_an_address_may_be_written_as_a_url(run, folder, server, protocol):
    port = server.ports.http if protocol else server.ports.grpc
    result = run(folder / "a.jpg", "--json", *protocol, "--url", f"http://127.0.0.1:{port}/")
    assert result.exit_code == 0, result.stderr
    assert lines(result)[0]["width"] == 1280


def test_any_name_and_any_picture(server, tmp_path, astronaut):
    """As a program: its arguments, its output and its terminal are bytes."""
    odd = {
        "caf\udce9.jpg": astronaut,
        "[red]x.jpg": astronaut,
        "[/bold].jpg": astronaut,
        "漢字.jpg": astronaut,
        "anim.gif": None,
        "mistyped.png": table.png(np.zeros((64, 96, 3), np.uint8), before=b"no TIFF at all"),
        "notes.txt": b"text",
    }
    frames = [Image.new("L", (8, 8), shade) for shade in (0, 255)]
    frames[0].save(tmp_path / "anim.gif", save_all=True, append_images=frames[1:])
    for name, data in odd.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if data is not None:
            (tmp_path / name).write_bytes(data)
    command = [sys.executable, ROOT / "tools" / "detect.py", tmp_path, "--url", server.grpc_url]
    environment = os.environ | {"PYTHONIOENCODING": "latin-1", "COLUMNS": "200"}
    result = subprocess.run([*command, "--json"], capture_output=True, env=environment, check=False)
    answers = {answer["image"]: answer for answer in map(json.loads, result.stdout.decode().splitlines())}
    assert set(answers) == {names.as_text(str(tmp_path / name)) for name in odd} - {str(tmp_path / "notes.txt")}
    assert "GIF of 2 frames: none was looked at" in answers[str(tmp_path / "anim.gif")]["error"]
    assert sum("error" in answer for answer in answers.values()) == 1
    assert b"1 file left out: 1 .txt" in result.stderr
    assert result.returncode == 1
    table_text = subprocess.run(
        command, capture_output=True, env=environment | {"PYTHONIOENCODING": "utf-8"}, check=False
    )
    assert b"Traceback" not in table_text.stderr
    assert b"[/bold].jpg" in table_text.stdout
    assert b"caf%E9.jpg" in table_text.stdout


def test_options_reach_the_server(run, folder):
    picture = folder / "a.jpg"
    assert lines(run(picture, "--json", "--confidence-threshold", 0.999))[0]["detections"] == []
    many = lines(run(picture, "--json", "--confidence-threshold", 0.01, "--iou-threshold", 1))[0]["detections"]
    some = ["--confidence-threshold", 0.01, "--iou-threshold", 1, "--max-detections", 2]
    assert lines(run(picture, "--json", *some))[0]["detections"] == many[:2]
    assert lines(run(picture, "--json", "--classes", "FACE_MALE"))[0]["detections"] == []


def test_what_cannot_work_says_why(run, folder):
    refused = run(folder / "a.jpg", "--confidence-threshold", 3)
    assert refused.exit_code == 1
    assert "confidence_threshold must be in [0,1], got 3" in refused.stderr
    unknown = run(folder / "a.jpg", "--censor-classes", "FACE")
    assert unknown.exit_code == 2
    assert "'FACE'" in unknown.stderr
    assert "FACE_MALE" in unknown.stderr
    (folder / "empty").mkdir()
    assert "no pictures there" in run(folder / "empty").stderr
    address = run(folder / "a.jpg", "--http", "--url", "http://127.0.0.1:8000/v2")
    assert address.exit_code == 1
    assert "expected HOST:PORT" in address.stderr
    nobody = run(folder / "a.jpg", "--url", "127.0.0.1:1", "--deadline", 0.1)
    assert nobody.exit_code == 1
    assert "make serve" in nobody.stderr


@pytest.mark.parametrize("style", ["blur", "pixelate", "fill"])
def test_what_is_censored_is_not_found_again(run, server, tmp_path, astronaut, style):
    (tmp_path / "a.jpg").write_bytes(turned(astronaut))
    out = tmp_path / "out"
    found = run(tmp_path / "a.jpg", "--json", "--censor", out, "--censor-classes", "FACE_FEMALE", "--style", style)
    assert found.exit_code == 0
    (face,) = lines(found)[0]["detections"]
    with Image.open(out / "a.jpg") as picture:
        assert picture.size == (1280, 720)  # upright
        assert not picture.getexif()
        censored = np.asarray(picture).astype(int)
    with Image.open(io.BytesIO(astronaut)) as picture:
        difference = np.abs(censored - np.asarray(picture))
    x1, y1, x2, y2 = (round(value) for value in face["box"])
    assert difference[y1:y2, x1:x2].mean() > 10
    difference[y1 - 16 : y2 + 16, x1 - 16 : x2 + 16] = 0  # JPEG blocks share what lies at the border
    assert difference.mean() < 4  # two further encodings at quality 95
    with Client(server.grpc_url) as client:
        assert "FACE_FEMALE" not in client.detect(out / "a.jpg").labels


# Read as other colours than they were made of, or hardly to be seen: no face to a viewer either.
UNLIKE = 40  # of 255, in the mean of a cell
FACELESS = ("YCCK", "four components", "dark grey", "one bit", "profile: ")


def test_odd_pictures_are_censored_where_viewers_see_the_face(run, tmp_path, astronaut):
    (tmp_path / "in").mkdir()
    with Image.open(io.BytesIO(astronaut)) as opened:
        frame = opened.convert("RGB").resize((640, 360))
    shown = [v for v in [*table.jpegs(frame), *table.others(frame)] if not v.refused]
    shown = [vector for vector in shown if not any(word in vector.name for word in FACELESS)]
    answers = table.answers()
    photo = answers["format: PNG"].cells.astype(int)
    # Parts of files make some of them white, a negative or a silhouette.
    shown = [v for v in shown if "parts" not in v.name or abs(answers[v.name].cells - photo).max() < UNLIKE]
    for number, vector in enumerate(shown):
        (tmp_path / "in" / f"{number:03}.jpg").write_bytes(vector.data)
    options = ["--json", "--classes", "FACE_FEMALE"]
    censor = ["--censor", tmp_path / "out", "--censor-classes", "FACE_FEMALE", "--style", "fill"]
    result = run(tmp_path / "in", *options, *censor)
    assert result.exit_code == 0, result.stderr
    for vector, found in zip(shown, lines(result), strict=True):
        answer = answers[vector.name]
        assert (found["width"] > found["height"]) == (answer.width > answer.height), vector.name
        assert found["detections"], vector.name
    again = lines(run(tmp_path / "out", *options))
    assert [vector.name for vector, found in zip(shown, again, strict=True) if found["detections"]] == []


def stored_for(picture, shown):
    """What a file must hold so that `shown`, a function of values 0..1, makes the picture of it."""
    levels = np.arange(256) / 255
    back = np.abs(shown(levels)[None] - levels[:, None]).argmin(axis=1).astype(np.uint8)
    return Image.fromarray(back[np.asarray(picture)])


def test_a_profile_cannot_show_viewers_another_picture_than_the_detector(run, tmp_path, astronaut):
    """The file holds a negative, or its channels swapped, which the profile puts right, as far as viewers see."""
    (tmp_path / "in").mkdir()
    with Image.open(io.BytesIO(astronaut)) as opened:
        frame = opened.convert("RGB").resize((640, 360))

    def of_light(light):
        return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)

    negative = stored_for(frame, lambda values: of_light(1 - values))
    red, green, blue = frame.split()
    swapped = Image.merge("RGB", [blue, red, green])
    swapping = profiles.matrix((profiles.SRGB[2], profiles.SRGB[0], profiles.SRGB[1]))
    files = {
        "plain.jpg": encode(frame, quality=95),
        "negative.jpg": coloured.with_profile(encode(negative, quality=95), coloured.negative()),
        "grey.jpg": coloured.with_profile(
            encode(negative.convert("L"), quality=95), profiles.grey(profiles.curv([1, 0]))
        ),
        "ink.jpg": coloured.with_profile(
            encode(Image.fromarray(255 - np.asarray(frame)).convert("CMYK"), quality=95),
            coloured.ink_profile(lambda colours: 1 - colours),
        ),
        "swapped.jpg": coloured.with_profile(encode(swapped, quality=95), swapping),
        "p3.jpg": coloured.with_profile(encode(frame, quality=95), profiles.matrix(profiles.DISPLAY_P3)),
        "negative.png": encode(negative, format="PNG", icc_profile=coloured.negative()),
        "negative.tif": encode(negative, format="TIFF", icc_profile=coloured.negative()),
        "negative.webp": encode(negative, format="WEBP", quality=95, icc_profile=coloured.negative()),
    }
    for name, data in files.items():
        (tmp_path / "in" / name).write_bytes(data)
    options = ["--json", "--classes", "FACE_FEMALE"]
    censor = ["--censor", tmp_path / "out", "--censor-classes", "FACE_FEMALE", "--style", "fill"]
    result = run(*[tmp_path / "in" / name for name in files], *options, *censor)
    assert result.exit_code == 0, result.stderr
    (face, *others) = [line["detections"][0]["box"] for line in lines(result)]
    for box in others:
        assert np.abs(np.array(box) - face).max() < 20
    written = sorted((tmp_path / "out").iterdir())
    assert len(written) == len(files)
    x, y = round((face[0] + face[2]) / 2), round((face[1] + face[3]) / 2)
    for path in written:
        shown = upright_pixels(path.read_bytes()).astype(int)
        assert shown[y, x].max() < 12, path  # black to viewers, whatever is stored
        if path.name != "grey.jpg":
            assert np.abs(shown[40:100, 40:100] - np.asarray(frame)[40:100, 40:100]).mean() < 25, path
    again = lines(run(tmp_path / "out", *options))
    assert not any(found["detections"] for found in again)


def test_pictures_without_anything_to_censor_are_there_too_but_failed_ones_are_not(run, folder, tmp_path):
    result = run(folder, "--censor", tmp_path / "out")  # a face is not among the classes censored by default
    assert result.exit_code == 1
    written = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert written == {"a.jpg", "below/a.jpg"}


def test_censoring_does_not_depend_on_what_is_shown(run, folder, tmp_path):
    options = ["--classes", "FACE_MALE", "--censor-classes", "FACE_FEMALE", "--style", "fill", "--json"]
    result = run(folder / "a.jpg", "--censor", tmp_path / "out", *options)
    assert lines(result)[0]["detections"] == []
    with Image.open(tmp_path / "out" / "a.jpg") as picture:
        assert max(picture.getpixel((550, 280))) < 10  # the middle of the face


def test_boxes_are_drawn(run, folder, tmp_path):
    run(folder / "a.jpg", folder / "below" / "a.jpg", "--annotate", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a-2.jpg", "a.jpg"]
    with Image.open(tmp_path / "out" / "a.jpg") as drawn, Image.open(folder / "a.jpg") as original:
        difference = np.abs(np.asarray(drawn).astype(int) - np.asarray(original)).max(axis=2)
    assert (difference[200:350, 425:435] > 40).any(axis=1).all()  # the left side of the box
    assert difference[500:].max() < 60  # and nothing far from it


@pytest.mark.parametrize("option", ["--annotate", "--censor"])
def test_originals_stay(run, folder, tmp_path, astronaut, option):
    result = run(folder / "a.jpg", option, folder)
    assert result.exit_code == 1
    assert "is an original and stays as it is" in result.stderr
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "a.jpg").symlink_to(folder / "a.jpg")
    run(folder / "below" / "a.jpg", option, tmp_path / "link")  # the link is replaced, not followed
    assert (folder / "a.jpg").read_bytes() == astronaut
    assert not (tmp_path / "link" / "a.jpg").is_symlink()


def test_answers_keep_the_order_of_the_pictures(run, folder, tmp_path):
    for i in range(20):
        shutil.copyfile(folder / "a.jpg", tmp_path / f"{i:02}.jpg")
    result = run(*sorted(tmp_path.glob("*.jpg")), "--json", "--batch-size", 3, "--concurrency", 2)
    answers = lines(result)
    assert [answer["image"] for answer in answers] == [str(tmp_path / f"{i:02}.jpg") for i in range(20)]
    assert len({json.dumps(answer["detections"]) for answer in answers}) == 1
