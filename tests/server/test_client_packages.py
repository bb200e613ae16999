"""Both clients as packages: built, installed where nothing else of the repository is, and run as their READMEs say."""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from pathlib import Path

from conftest import DATA
from helpers.client_packages import NODE_CLIENT, ROOT, copy_python_client, run

PICTURE = DATA / "astronaut_720p.jpg"


def readme_example(client: str, language: str, url: str) -> str:
    """The example in a client's README, for the server at `url` and the bundled picture."""
    text = (ROOT / "clients" / client / "README.md").read_text()
    (code,) = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    assert "127.0.0.1:8001" in code
    assert "photo.jpg" in code
    return code.replace("127.0.0.1:8001", url).replace("photo.jpg", str(PICTURE))


def test_wheel_and_sdist_hold_the_typed_package(tmp_path):
    copy_python_client(tmp_path)
    run(sys.executable, "-m", "build", "clients/python", "--outdir", "dist", cwd=tmp_path)
    modules = {path.name for path in (ROOT / "clients/python/nudenet_client").iterdir() if path.is_file()}
    assert {"__init__.py", "py.typed"} <= modules
    (wheel,), (sdist,) = (tmp_path / "dist").glob("*.whl"), (tmp_path / "dist").glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(name for name in names if name.endswith("/METADATA"))).decode()
    assert {name.split("/")[1] for name in names if name.startswith("nudenet_client/")} == modules
    assert re.search(r"^Requires-Python: >=3\.9$", metadata, re.MULTILINE)
    assert re.search(r'^Requires-Dist: supervision.*; extra == "supervision"$', metadata, re.MULTILINE)
    assert "# nudenet_client" in metadata  # the README is its description
    with tarfile.open(sdist) as archive:
        members = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", *(f"nudenet_client/{name}" for name in modules)} <= members


def test_the_python_client_needs_nothing_newer_than_its_oldest_python():
    """ruff knows the syntax, vermin the standard library."""
    package = ROOT / "clients" / "python" / "nudenet_client"
    run(Path(sys.executable).with_name("vermin"), "-t=3.9-", "--no-tips", "--violations", package, cwd=ROOT)


def test_the_python_readme_runs_in_a_clean_environment(server, clean_python, tmp_path):
    (tmp_path / "example.py").write_text(readme_example("python", "python", server.grpc_url))
    assert "FACE_FEMALE" in run(clean_python, "example.py", cwd=tmp_path)
    shown = run(
        clean_python, "-c", "import numpy, nudenet_client as c; print(numpy.__version__, c.__file__)", cwd=tmp_path
    )
    assert shown.startswith("2.")
    assert str(ROOT) not in shown


def test_the_packed_node_client_runs_as_its_readme_says(server, node_project):
    (node_project / "example.js").write_text(readme_example("node", "js", server.grpc_url))
    assert "FACE_FEMALE" in run("node", "example.js", cwd=node_project)
    command = ("npx", "--no-install", "nudenet-detect", "--url", server.grpc_url, "--json", PICTURE)
    assert '"label":"FACE_FEMALE"' in run(*command, cwd=node_project)


def test_the_packed_types_are_checked(node_project):
    (node_project / "typed.ts").write_text(
        "import { Client, PictureError, type Answer } from 'nudenet-triton-client';\n"
        "import { infer } from 'nudenet-triton-client/tensors';\n"
        "const client = new Client('127.0.0.1:8001', { deadlineMs: 1000, roundRobin: true });\n"
        "const answer: Answer = await client.detect('a.jpg', { confidence_threshold: 0.4, classes: ['FACE_MALE'] });\n"
        "const box: [number, number, number, number] = answer.detections[0].box;\n"
        "for await (const { error } of client.detectMany(['a.jpg'], {}, { onError: 'report' })) error?.length;\n"
        "const reason: string = new PictureError('why').reason;\n"
        "// @ts-expect-error no such parameter\n"
        "await client.detect('a.jpg', { confidence: 0.4 });\n"
        "// @ts-expect-error no tensor\n"
        "await infer(client, box);\n"
    )
    options = ("--noEmit", "--strict", "--module", "nodenext", "--target", "es2022", "--types", "node")
    run("node", NODE_CLIENT / "node_modules/typescript/bin/tsc", *options, "typed.ts", cwd=node_project)
