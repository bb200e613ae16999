"""Missing system packages: installed where set-up may, otherwise all named at once."""

from __future__ import annotations

import subprocess

import pytest

from nudenet_tools.server import system_packages
from nudenet_tools.server.system_packages import Package, main


def package(program: str, group: str, present: bool = False) -> Package:
    return Package(program, f"debian-{program}", f"for {program}", group, lambda: present)


@pytest.fixture
def machine(monkeypatch):
    """A machine that lacks three of four packages; returns a function that sets who runs set-up and what apt has."""
    lacking = {name: package(name, group) for name, group in (("lib", "server"), ("web", "tests"), ("sh", "tests"))}
    calls: list[tuple[str, ...]] = []

    def prepare(root: bool, offered: tuple[str, ...] = (), more: tuple[Package, ...] = ()):
        def apt_get(*arguments: str) -> subprocess.CompletedProcess[str]:
            calls.append(arguments)
            fails = arguments[-1] not in ("update", *offered)
            if arguments[0] == "install":
                for name in arguments[1:]:
                    program = name.removeprefix("debian-")
                    lacking[program] = package(program, lacking[program].group, present=True)
                    monkeypatch.setattr(system_packages, "PACKAGES", (*lacking.values(), *more))
            return subprocess.CompletedProcess(arguments, int(fails), "", "no such package")

        monkeypatch.setattr(system_packages, "PACKAGES", (*lacking.values(), package("there", "tests", True), *more))
        monkeypatch.setattr(system_packages, "_may_install", lambda: root)
        monkeypatch.setattr(system_packages, "_apt_get", apt_get)
        system_packages.offers.cache_clear()
        return calls

    yield prepare
    system_packages.offers.cache_clear()


def test_an_ordinary_user_is_told_all_at_once(machine, capsys):
    calls = machine(root=False)
    assert main(("setup", "server")) == 0
    said = capsys.readouterr().err
    assert "apt-get install --no-install-recommends debian-lib debian-web debian-sh\n" in said
    assert all(f"for {name}\n" in said for name in ("lib", "web", "sh"))
    assert "there" not in said
    assert {call[0] for call in calls} <= {"--simulate"}


def test_an_ordinary_user_is_told_what_the_distribution_lacks(machine, capsys):
    machine(root=False, offered=("debian-lib", "debian-sh"))
    assert main(("setup", "server")) == 0
    said = capsys.readouterr().err
    assert "apt-get install --no-install-recommends debian-lib debian-sh\n" in said
    assert "not offered by this distribution, to be installed in another way: debian-web\n" in said


def test_root_gets_what_the_group_lacks_and_no_more(machine, capsys):
    calls = machine(root=True, offered=("debian-lib", "debian-web", "debian-sh"))
    assert main(("setup", "server")) == 0
    assert [call[1:] for call in calls if call[0] == "install"] == [("debian-lib",)]
    assert "missing" not in capsys.readouterr().err


def test_what_the_distribution_lacks_is_named_and_the_rest_installed(machine, capsys):
    calls = machine(root=True, offered=("debian-lib", "debian-sh"))
    assert main(("setup", "server", "tests")) == 0
    assert [call[1:] for call in calls if call[0] == "install"] == [("debian-lib", "debian-sh")]
    said = capsys.readouterr().err
    assert (
        "  debian-web  for web\nnot offered by this distribution, to be installed in another way: debian-web\n" in said
    )


def test_nothing_goes_on_without_what_set_up_itself_needs(machine, capsys):
    machine(root=False, more=(package("venv", "setup"),))
    assert main(("setup", "server")) == 1
    assert "setup: cannot go on without debian-venv" in capsys.readouterr().err


def test_tests_name_only_packages_of_the_list(request):
    known = {one.program for one in system_packages.PACKAGES}
    named = {name for item in request.session.items for marker in item.iter_markers("needs") for name in marker.args}
    assert named <= known
