# SPDX-License-Identifier: Apache-2.0
"""test.sh and demo.sh with a made-up machine around them: a PATH of our own, a Python that logs."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess

import pytest

import readme
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

    def run(self, command, **environment):
        """Runs it in the checkout; the result's `log` holds what the Pythons were asked."""
        self.log.write_text("")
        done = subprocess.run(
            ["bash", "-ec", command],
            cwd=self.root,
            env={"PATH": str(self.bin), "HOME": os.environ.get("HOME", "/"), **environment},
            capture_output=True,
            text=True,
        )
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


# What each script ends in, arguments that choose it included.
PROGRAMS = {
    "scripts/test.sh --gpu-stand-in": "tests/gpu_stand_in.py -m pytest -n 2 --dist loadfile",
    "scripts/test.sh": "-m pytest -n 2 --dist loadfile",
    "scripts/demo.sh": "scripts/demo.py",
}


@pytest.mark.parametrize(
    "block", readme.shell_blocks("test_scripts"), ids=lambda block: block.title
)
def test_commands_of_the_readme_install_build_and_end_in_their_program(good_machine, block):
    done = good_machine.run(block.text)
    assert done.returncode == 0, done.stderr
    ended_in, wanted = [], {"test"}
    for line in block.lines():
        words = shlex.split(line)
        wanted |= {word[len("EXTRAS=") :] for word in words if word.startswith("EXTRAS=")}
        command = " ".join(word for word in words if "=" not in word)
        script = next(script for script in PROGRAMS if command.startswith(script))
        wanted |= {"demo"} if "demo" in script else set()
        ended_in.append(command.replace(script, PROGRAMS[script]))
    assert [line for line in done.log if line.startswith(tuple(PROGRAMS.values()))] == ended_in
    # The extras add up, and the libraries are built before each program.
    assert done.installs[-1].endswith(f"-e {good_machine.root}[{','.join(sorted(wanted))}]")
    assert done.log.count("-m ms_deform build") == len(ended_in)


def test_no_compiler(machine):
    machine.add_python()
    assert_one_line(machine.run("scripts/demo.sh"), "demo.sh", "g++", "apt-get install g++")


def test_no_python(machine):
    machine.add("g++")
    done = machine.run("scripts/test.sh")
    assert_one_line(done, "needs Python 3.9 to 3.12", "apt-get install python3")


def test_python_without_venv_module(machine):
    machine.add("g++")
    machine.add_python(ensurepip="false")
    assert_one_line(machine.run("scripts/test.sh"), "apt-get install python3-venv")


def test_next_python_is_taken_where_the_first_is_too_new(machine):
    machine.add("g++")
    machine.add_python("3.13.1")
    assert_one_line(machine.run("scripts/test.sh"), "needs Python 3.9 to 3.12", "Python 3.13.1")
    machine.add_python("3.11.4", name="python3.11")
    assert "making .venv with Python 3.11.4" in machine.run("scripts/test.sh").stdout


def test_pip_is_asked_again_only_where_that_changes_something(good_machine):
    assert len(good_machine.run("scripts/test.sh").installs) == 1
    assert good_machine.run("scripts/test.sh").installs == []
    with (good_machine.root / "setup.cfg").open("a") as file:
        file.write("# changed\n")
    assert len(good_machine.run("scripts/test.sh").installs) == 1


def test_failed_install_is_tried_again(good_machine):
    failing = (good_machine.bin / "python3").read_text() + '[[ "$1 $2" != "-m pip" ]]\n'
    good_machine.add("python3", failing)
    assert good_machine.run("scripts/test.sh").returncode == 1
    assert len(good_machine.run("scripts/test.sh").installs) == 1
