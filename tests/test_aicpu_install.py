# SPDX-License-Identifier: Apache-2.0
"""The AICPU package goes where CANN looks for vendors' operators, and away again without a trace.

CANN asks the vendors that ASCEND_CUSTOM_OPP_PATH names, and those of its own folder vendors that
the line load_priority of vendors/config.ini names, in their order.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import NamedTuple

import pytest

from ms_deform.__main__ import main
from ms_deform.install import cann
from ms_deform.install.aicpu_operators import FORWARD, OPERATORS

LIST = "op_impl/cpu/config/cust_aicpu_kernel.json"
KERNELS = "op_impl/cpu/aicpu_kernel/impl/libms_deform_aicpu.so"
PROTO = f"op_proto/lib/linux/{platform.machine()}/libcust_opsproto_rt2.0.so"
PROTO_TOO = f"op_proto/lib/linux/{platform.machine()}/libcust_op_proto.so"


class Cann(NamedTuple):
    vendors: Path

    @property
    def config(self) -> Path:
        return self.vendors / "config.ini"

    @property
    def own(self) -> Path:
        return self.vendors / "ms_deform"


@pytest.fixture
def installed_cann(tmp_path, monkeypatch) -> Cann:
    """A CANN that its set_env.sh has named, and the built package."""
    write(tmp_path / "built" / "aicpu", {KERNELS: "kernels", PROTO: "prototypes"})
    write_list(tmp_path / "built" / "aicpu", *(operator.name for operator in OPERATORS))
    (tmp_path / "built" / "aicpu" / PROTO_TOO).symlink_to(Path(PROTO).name)
    monkeypatch.setenv("MS_DEFORM_LIBRARY_DIR", str(tmp_path / "built"))
    vendors = tmp_path / "cann" / "opp" / "vendors"
    vendors.mkdir(parents=True)
    monkeypatch.setenv("ASCEND_OPP_PATH", str(vendors.parent))
    monkeypatch.delenv("ASCEND_CUSTOM_OPP_PATH", raising=False)
    return Cann(vendors)


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def write_list(folder: Path, *operators: str) -> None:
    write(folder, {LIST: "{" + ", ".join(f'"{operator}": {{}}' for operator in operators) + "}"})


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_without_a_folder_it_goes_among_canns_vendors(installed_cann, capsys):
    assert cann.aicpu_package(FORWARD.name) is None
    assert main(["install-aicpu"]) == 0
    # CANN finds it as it is: there is nothing else to tell.
    assert capsys.readouterr().out == f"{installed_cann.own}\n"
    assert set(content(installed_cann.own)) == {LIST, KERNELS, PROTO, PROTO_TOO}
    assert (installed_cann.own / PROTO_TOO).samefile(installed_cann.own / PROTO)
    assert installed_cann.config.read_text() == "load_priority=ms_deform\n"
    assert cann.aicpu_package(FORWARD.name) == installed_cann.own


def test_the_environments_first_folder_comes_before(installed_cann, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ASCEND_CUSTOM_OPP_PATH", f"{tmp_path}/custom:{tmp_path}/other")
    assert main(["install-aicpu"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/custom\n"
    assert cann.aicpu_package(FORWARD.name) == tmp_path / "custom"
    assert content(installed_cann.vendors) == {}


def test_elsewhere_the_variable_is_told(installed_cann, tmp_path, capsys):
    assert main(["install-aicpu", str(tmp_path / "here")]) == 0
    assert f"export ASCEND_CUSTOM_OPP_PATH={tmp_path}/here:" in capsys.readouterr().out
    assert content(installed_cann.vendors) == {}


def test_without_a_folder_and_without_cann_it_asks_for_one(installed_cann, monkeypatch, capsys):
    monkeypatch.delenv("ASCEND_OPP_PATH")
    assert main(["install-aicpu"]) == 1
    told = capsys.readouterr().err
    assert "install-aicpu DIR" in told
    assert "set_env.sh" in told


def test_without_a_package_the_build_is_told(installed_cann, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MS_DEFORM_LIBRARY_DIR", str(tmp_path / "empty"))
    assert main(["install-aicpu"]) == 1
    assert "build it: python -m ms_deform build --aicpu" in capsys.readouterr().err


# What config.ini said before, and what it says with the package in it.
LISTS = {
    "load_priority=theirs\n": "load_priority=ms_deform,theirs\n",
    "load_priority=b,a": "load_priority=ms_deform,b,a",
    "load_priority=my_ms_deform,ms_deform_2\n": (
        "load_priority=ms_deform,my_ms_deform,ms_deform_2\n"
    ),
    "# load_priority=no\r\nload_priority=theirs\r\nother=1\r\n": (
        "# load_priority=no\r\nload_priority=ms_deform,theirs\r\nother=1\r\n"
    ),
    "other=1\n": "load_priority=ms_deform\nother=1\n",
}


@pytest.mark.parametrize(("before", "after"), LISTS.items(), ids=range(len(LISTS)))
def test_it_is_listed_in_front_of_others_and_taken_out_again(installed_cann, before, after):
    installed_cann.config.write_bytes(before.encode())
    write_list(installed_cann.vendors / "theirs", "TheirOperator")
    untouched = content(installed_cann.vendors)
    for _ in range(2):
        assert main(["install-aicpu"]) == 0
        assert installed_cann.config.read_bytes().decode() == after
    assert main(["install-aicpu", "--remove"]) == 0
    assert content(installed_cann.vendors) == untouched
    assert not installed_cann.own.exists()


def test_a_list_that_names_it_already_has_it_in_front(installed_cann):
    installed_cann.config.write_text("load_priority=theirs, ms_deform,others\n")
    assert main(["install-aicpu"]) == 0
    assert installed_cann.config.read_text() == "load_priority=ms_deform,theirs,others\n"


def test_a_list_of_its_own_goes_with_it(installed_cann, capsys):
    assert main(["install-aicpu"]) == 0
    assert main(["install-aicpu", "--remove"]) == 0
    assert f"removed from {installed_cann.own}\n" in capsys.readouterr().out
    assert not any(installed_cann.vendors.iterdir())
    assert cann.aicpu_package(FORWARD.name) is None


def test_under_another_name_among_canns_vendors_that_name_is_listed(installed_cann):
    target = installed_cann.vendors / "ours"
    assert main(["install-aicpu", str(target)]) == 0
    assert installed_cann.config.read_text() == "load_priority=ours\n"
    assert cann.aicpu_package(FORWARD.name) == target
    assert main(["install-aicpu", "--remove", str(target)]) == 0
    assert not any(installed_cann.vendors.iterdir())


def test_a_vendor_that_is_not_listed_is_not_installed(installed_cann):
    write_list(installed_cann.vendors / "ours", FORWARD.name)
    assert cann.aicpu_package(FORWARD.name) is None
    installed_cann.config.write_text("load_priority=ours\n")
    assert cann.aicpu_package(FORWARD.name) == installed_cann.vendors / "ours"


def test_the_vendor_that_is_listed_first_is_taken(installed_cann):
    for name in ("a", "b"):
        write_list(installed_cann.vendors / name, FORWARD.name)
    installed_cann.config.write_text("load_priority=none,b,a\n")
    assert cann.aicpu_package(FORWARD.name) == installed_cann.vendors / "b"


THEIRS = {
    "kernels": {LIST: '{"TheirOperator": {}}'},
    "ours among kernels": {LIST: '{"TheirOperator": {}, "MsDeformAicpuForward": {}}'},
    "operators of the AI Core": {"op_impl/ai_core/tbe/config/ascend910b/ops.json": "{}"},
    "a list that is broken": {LIST: "{"},
}


@pytest.mark.parametrize("files", THEIRS.values(), ids=THEIRS)
def test_another_vendors_folder_is_left_alone(installed_cann, files, capsys):
    write(installed_cann.own, files)
    before = content(installed_cann.vendors)
    assert main(["install-aicpu"]) == 1
    assert "of another vendor" in capsys.readouterr().err
    assert main(["install-aicpu", "--remove"]) == 1
    assert "install-aicpu --remove DIR" in capsys.readouterr().err
    assert content(installed_cann.vendors) == before


def test_what_others_put_into_its_folder_stays(installed_cann):
    assert main(["install-aicpu"]) == 0
    write(installed_cann.own, {"op_impl/cpu/readme": "mine"})
    assert main(["install-aicpu"]) == 0
    assert main(["install-aicpu", "--remove"]) == 0
    assert content(installed_cann.own) == {"op_impl/cpu/readme": b"mine"}


def test_an_installation_that_broke_off_is_finished(installed_cann):
    write(installed_cann.own, {KERNELS: "half"})
    assert main(["install-aicpu"]) == 0
    assert (installed_cann.own / KERNELS).read_text() == "kernels"


def test_a_folder_that_cannot_be_written_is_told(installed_cann, capsys):
    installed_cann.own.write_text("a file")
    assert main(["install-aicpu"]) == 1
    assert "choose a folder of your own: python -m ms_deform install-aicpu" in (
        capsys.readouterr().err
    )
