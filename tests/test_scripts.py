# SPDX-License-Identifier: Apache-2.0
"""test.sh and demo.sh with a made-up machine around them: a PATH of our own, a Python that logs."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from fake_checkout import REPOSITORY

TOOLS = (
    *("bash", "basename", "cat", "chmod", "dirname", "env", "head", "mkdir"),
    *("paste", "sed", "sha256sum", "sort", "tail", "tr"),
)

# Logs its arguments, makes a `.venv` whose Python is itself, and claims to be the version that
# stands in place of VERSION.
FAKE_PYTHON = """#!/usr/bin/env bash
echo "$@" >>LOG
if [[ $1 == -V ]]; then echo "Python VERSION"; fi
if [[ $1 == -c ]]; then
  case "$2" in
    *version_info*) [[ VERSION == 3.11.* ]] ;;
    *ensurepip*) ENSUREPIP ;;
  esac
  exit
fi
if [[ "$1 $2" == "-m venv" ]]; then
  mkdir -p "$4/bin"
  cat "$0" >"$4/bin/python"
  chmod +x "$4/bin/python"
fi
"""


class Machine:
    """A checkout's scripts, and all that they can find on the PATH."""

    def __init__(self, root):
        self.root = root
        self.bin = root / "bin"
        self.log = root / "log"
        self.bin.mkdir()
        self.log.touch()
        (root / "scripts").mkdir()
        for name in ("venv.sh", "test.sh", "demo.sh"):
            shutil.copy(REPOSITORY / "scripts" / name, root / "scripts")
        for name in ("setup.cfg", "pyproject.toml"):
            shutil.copy(REPOSITORY / name, root)
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool))

    def add(self, name, text="#!/bin/sh\n"):
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def add_python(self, version="3.11.9", ensurepip="true", name="python3"):
        text = FAKE_PYTHON.replace("VERSION", version).replace("ENSUREPIP", ensurepip)
        self.add(name, text.replace("LOG", str(self.log)))

    def run(self, script, *arguments, **environment):
        """Runs a script; the result's `log` holds what the Pythons were asked meanwhile."""
        self.log.write_text("")
        command = [str(self.root / "scripts" / script), *arguments]
        environment = {"PATH": str(self.bin), "HOME": os.environ.get("HOME", "/"), **environment}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        done.log = self.log.read_text().splitlines()
        done.installs = [line for line in done.log if line.startswith("-m pip install")]
        return done


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@pytest.fixture
def good_machine(machine):
    machine.add("g++")
    machine.add_python()
    return machine


def assert_one_line(done, *words):
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize("script", ["test.sh", "demo.sh"])
def test_no_compiler(machine, script):
    machine.add_python()
    assert_one_line(machine.run(script), script, "g++", "apt-get install g++")


def test_no_python(machine):
    machine.add("g++")
    assert_one_line(machine.run("test.sh"), "needs Python 3.9 to 3.12", "apt-get install python3")


def test_unsupported_python_is_named(machine):
    machine.add("g++")
    machine.add_python("3.13.1")
    assert_one_line(machine.run("test.sh"), "needs Python 3.9 to 3.12", "Python 3.13.1")


def test_python_without_venv_module(machine):
    machine.add("g++")
    machine.add_python(ensurepip="false")
    assert_one_line(machine.run("test.sh"), "apt-get install python3-venv")


def test_next_python_is_taken_where_the_first_does_not_do(machine):
    machine.add("g++")
    machine.add_python("3.13.1")
    machine.add_python("3.11.4", name="python3.11")
    assert "making .venv with Python 3.11.4" in machine.run("test.sh").stdout


def test_first_run_makes_installs_builds_and_tests(good_machine):
    done = good_machine.run("test.sh", "-k", "border")
    assert done.returncode == 0, done.stderr
    (install,) = done.installs
    assert install.endswith(f"-e {good_machine.root}[test]")
    assert done.log[-2:] == ["-m ms_deform build", "-m pytest -k border"]


def test_second_run_asks_pip_for_nothing(good_machine):
    good_machine.run("test.sh")
    done = good_machine.run("test.sh")
    assert done.installs == []
    assert "-m venv" not in " ".join(done.log)
    assert done.stdout == ""
    assert done.log[-1] == "-m pytest"


def test_extras_add_up(good_machine):
    good_machine.run("test.sh")
    done = good_machine.run("demo.sh", "--quick", EXTRAS="parity")
    (install,) = done.installs
    assert install.endswith("[demo,parity,test]")
    assert done.log[-1] == "scripts/demo.py --quick"
    assert good_machine.run("test.sh").installs == []


def test_changed_dependencies_are_installed(good_machine, tmp_path):
    good_machine.run("test.sh")
    with (good_machine.root / "setup.cfg").open("a") as file:
        file.write("# changed\n")
    assert len(good_machine.run("test.sh").installs) == 1
    constraint = tmp_path / "constraint.txt"
    constraint.write_text("mindspore==2.7.0\n")
    assert len(good_machine.run("test.sh", PIP_CONSTRAINT=str(constraint)).installs) == 1


def test_named_python_of_another_version_makes_the_venv_anew(good_machine):
    good_machine.run("test.sh")
    good_machine.add_python("3.11.99", name="other")
    assert "making .venv with Python 3.11.99" in good_machine.run("test.sh", PYTHON="other").stdout
    assert good_machine.run("test.sh").stdout == ""


def test_failed_install_is_tried_again(good_machine):
    failing = (good_machine.bin / "python3").read_text() + '[[ "$1 $2" != "-m pip" ]]\n'
    good_machine.add("python3", failing)
    assert good_machine.run("test.sh").returncode == 1
    assert len(good_machine.run("test.sh").installs) == 1
