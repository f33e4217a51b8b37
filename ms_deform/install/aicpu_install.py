# SPDX-License-Identifier: Apache-2.0
"""Puts the built AICPU package where CANN looks for vendors' operators, and takes it away again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ms_deform.install import vendors
from ms_deform.install.aicpu_operators import OPERATORS
from ms_deform.install.aicpu_package import FILES, package_path
from ms_deform.install.builder import BuildError
from ms_deform.install.cann import AICPU_CONFIG, custom_packages, vendors_path

_VENDOR = "ms_deform"


def install_package(
    target: str | os.PathLike[str] | None = None, directory: str | os.PathLike[str] | None = None
) -> Path:
    """Copies the built package, and lists it where the target lies among CANN's vendors.

    Args:
        target: Default: where ASCEND_CUSTOM_OPP_PATH points first, or, where it is not set, the
            folder ms_deform of CANN's vendors.
        directory: Where the package was built. Default: where `build_package` builds it.

    Raises:
        BuildError: If there is no package, no target, or the target is another vendor's.
    """
    package = package_path(directory)
    if not (package / AICPU_CONFIG).is_file():
        raise BuildError(
            f"ms_deform: no AICPU package at {package}; build it: python -m ms_deform build --aicpu"
        )
    folder = _chosen(target)
    if _is_anothers(folder):
        raise BuildError(
            f"ms_deform: {folder} holds files of another vendor; choose another folder, "
            "python -m ms_deform install-aicpu DIR, and list both in ASCEND_CUSTOM_OPP_PATH"
        )
    with _writing(folder):
        # Not in place: a process may have them loaded, and a link cannot be written over.
        _unlink_files(folder)
        shutil.copytree(package, folder, symlinks=True, dirs_exist_ok=True)
        if _is_vendors(folder):
            vendors.add(folder.parent / vendors.CONFIG, folder.name)
    return folder


def remove_package(target: str | os.PathLike[str] | None = None) -> Path:
    """Undoes `install_package`, and leaves what others put there.

    Raises:
        BuildError: If there is no package, or no target.
    """
    folder = _chosen(target)
    if not _is_own(folder):
        raise BuildError(
            f"ms_deform: no AICPU package of ms_deform in {folder}; name its folder: "
            "python -m ms_deform install-aicpu --remove DIR"
        )
    with _writing(folder):
        if _is_vendors(folder):
            vendors.remove(folder.parent / vendors.CONFIG, folder.name)
        _unlink_files(folder)
        for path in sorted({parent for file in FILES for parent in file.parents}, reverse=True):
            _remove_if_empty(folder / path)
    return folder


def is_found(folder: Path) -> bool:
    """Whether CANN looks for operators in a folder as things stand."""
    return folder in custom_packages() or _is_vendors(folder)


def _chosen(target: str | os.PathLike[str] | None) -> Path:
    among = vendors_path()
    default = [] if among is None else [among / _VENDOR]
    candidates = [target] if target else [*custom_packages(), *default]
    if not candidates:
        raise BuildError(
            "ms_deform: where to? name a folder, python -m ms_deform install-aicpu DIR, set "
            "ASCEND_CUSTOM_OPP_PATH, or source CANN's set_env.sh"
        )
    return Path(os.path.abspath(candidates[0]))


def _is_vendors(folder: Path) -> bool:
    among = vendors_path()
    return among is not None and folder.parent.resolve() == among.resolve()


def _is_own(folder: Path) -> bool:
    config = folder / AICPU_CONFIG
    try:
        kernels = set(json.loads(config.read_bytes()))
    except (OSError, ValueError, TypeError):
        return False
    return kernels <= {operator.name for operator in OPERATORS}


def _is_anothers(folder: Path) -> bool:
    files = {path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir()}
    return not _is_own(folder) and bool(files - ({*FILES} - {Path(AICPU_CONFIG)}))


def _unlink_files(folder: Path) -> None:
    for file in FILES:
        (folder / file).unlink(missing_ok=True)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BuildError(
            f"ms_deform: cannot write to {folder} ({error}); choose a folder of your own: "
            "python -m ms_deform install-aicpu DIR"
        ) from error
