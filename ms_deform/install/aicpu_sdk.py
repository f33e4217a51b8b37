# SPDX-License-Identifier: Apache-2.0
"""Finds CANN's headers and libraries for AICPU kernels and for operator prototypes.

Where they lie is read from CANN's own lists of files: CANN 8.1.RC1, ``opp/script/filelist.csv``,
``compiler/script/filelist.csv`` and ``runtime/script/filelist.csv``; hicann/opbase v8.5.0 and
v9.0.0, ``scripts/package/ops_base/ops_base.xml``; hicann/metadef v8.5.0 and v9.0.0,
``scripts/package/module/ascend/MetadefSo.xml``. With what a library of prototypes is linked: CANN
8.1.RC1, ``tools/op_project_templates/ascendc/customize/op_host/CMakeLists.txt``.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ms_deform.install.builder import BuildError
from ms_deform.install.cann import opp_path

# Those that the kernels include, and those that these include of them.
HEADERS = ("cpu_kernel.h", "cpu_context.h", "cpu_tensor.h", "cpu_tensor_shape.h", "cpu_types.h")
PROTOTYPE_HEADERS = ("graph/operator_reg.h", "register/op_impl_registry.h")
# CANN asks a library of prototypes for its shape inference by functions that the archive brings.
# The others it must name: MindSpore loads CANN's out of sight (RTLD_LOCAL, PluginLoader).
REGISTRY = "librt2_registry.a"
HOST_LIBRARIES = ("libexe_graph.so", "libregister.so")


class Layout(NamedTuple):
    """Folders below CANN's own; {host} is the architecture of the host that it is installed for."""

    name: str
    headers: tuple[str, ...]  # all of them together hold the headers
    libraries: tuple[str, ...]  # one of them holds both archives
    archives: tuple[str, str]  # what finds and runs kernels, and its protobuf


_CONTEXT = "aicpu_common/context"
_OPERATORS = "opp/built-in/op_impl/aicpu/aicpu_kernel"
_BASE = ("libaicpu_context.a", "libbase_ascend_protobuf.a")
_OPP = ("libcpu_kernels_context.a", "libascend_protobuf.a")
LAYOUTS = (
    Layout(
        "CANN 9",
        tuple(f"{{host}}-linux/pkg_inc/{_CONTEXT}/{part}" for part in ("common", "cpu_proto")),
        ("{host}-linux/lib64",),
        _BASE,
    ),
    Layout(
        "CANN 8.5",
        tuple(f"{{host}}-linux/include/{_CONTEXT}/{part}" for part in ("common", "cpu_proto")),
        ("{host}-linux/lib64",),
        _BASE,
    ),
    Layout(
        "CANN 8.1",
        (f"{_OPERATORS}/inc",),
        # A folder for each product that operators are installed for. Beside them aarch64 and x86
        # have no protobuf, and Ascend310RC is for the older C++ ABI.
        tuple(f"{_OPERATORS}/lib/{name}" for name in ("Ascend", "Ascend910", "Ascend310P")),
        _OPP,
    ),
    Layout("include and lib", ("include",), ("lib",), _OPP),
    Layout("include and lib", ("include",), ("lib",), _BASE),
)
_PROTOTYPE_INCLUDES = ("{host}-linux/include", "include")
_PROTOTYPE_LIBRARIES = ("{host}-linux/lib64", "{host}-linux/devlib/linux/{host}", "lib64", "lib")


@dataclass(frozen=True)
class Sdk:
    """What kernels for the device are built with."""

    layout: str
    root: Path
    headers: tuple[Path, ...]
    context: Path
    protobuf: Path

    @classmethod
    def find(cls) -> Sdk:
        """That of the folder MS_DEFORM_AICPU_SDK, else that of the installed CANN.

        Raises:
            BuildError: If there is none, or it lacks something.
        """
        named = os.environ.get("MS_DEFORM_AICPU_SDK")
        roots = [Path(named).absolute()] if named else _cann_roots()
        if not roots:
            raise BuildError(
                "ms_deform: no CANN: ASCEND_OPP_PATH names no folder; source CANN's set_env.sh "
                "(usually /usr/local/Ascend/ascend-toolkit/set_env.sh), or name a folder with "
                "CANN's files in MS_DEFORM_AICPU_SDK"
            )
        fitting = ((r, layout) for r in roots for layout in LAYOUTS if not _missing(r, layout))
        root, layout = next(fitting, (None, None))
        if layout is None:
            raise BuildError(_nothing_fits(roots))
        libraries = _holding(_below([root], layout.libraries), layout.archives)
        return cls(
            layout.name,
            root,
            tuple(_below([root], layout.headers)),
            *(libraries / archive for archive in layout.archives),
        )


class Prototypes(NamedTuple):
    """What operator prototypes for the host are built with."""

    headers: Path
    libraries: Path

    @classmethod
    def find(cls, root: Path) -> Prototypes:
        """Those of a folder, and what it lacks from the installed CANN.

        Raises:
            BuildError: If neither has it.
        """
        roots = [*dict.fromkeys((root, *_cann_roots()))]
        return cls(
            _required(roots, _PROTOTYPE_INCLUDES, PROTOTYPE_HEADERS),
            _required(roots, _PROTOTYPE_LIBRARIES, (REGISTRY, *HOST_LIBRARIES)),
        )


def _cann_roots() -> list[Path]:
    """The folder that opp lies in, as it is named and, where that is a link, as it is."""
    opp = opp_path()
    return [] if opp is None else [*dict.fromkeys((opp.absolute().parent, opp.resolve().parent))]


def _below(roots: Iterable[Path], folders: Sequence[str]) -> list[Path]:
    host = platform.machine()
    return [root / folder.format(host=host) for root in roots for folder in folders]


def _holding(folders: Iterable[Path], files: Sequence[str]) -> Path | None:
    """The first folder that holds all of the files."""
    return next((folder for folder in folders if all((folder / f).is_file() for f in files)), None)


def _missing(root: Path, layout: Layout) -> list[str]:
    """What a folder lacks of a layout, and where it would be."""
    headers = _below([root], layout.headers)
    absent = [name for name in HEADERS if not any((folder / name).is_file() for folder in headers)]
    missing = [f"no {', '.join(absent)} in {_listed(headers)}"] if absent else []
    libraries = _below([root], layout.libraries)
    if _holding(libraries, layout.archives) is None:
        missing.append(f"no {' and '.join(layout.archives)} in {_listed(libraries)}")
    return missing


def _nothing_fits(roots: Sequence[Path]) -> str:
    rows = [
        f"  as {layout.name}: {'; '.join(_missing(root, layout))}"
        for root in roots
        for layout in LAYOUTS
    ]
    return "\n".join(
        [
            f"ms_deform: {_listed(roots)} has no headers and libraries for AICPU kernels:",
            *rows,
            "install CANN's toolkit and its operators (ops or kernels package), or name a folder "
            "with those files in MS_DEFORM_AICPU_SDK",
        ]
    )


def _required(roots: Sequence[Path], folders: Sequence[str], files: Sequence[str]) -> Path:
    candidates = _below(roots, folders)
    folder = _holding(candidates, files)
    if folder is None:
        raise BuildError(
            f"ms_deform: no {' and '.join(files)} for the operators' prototypes in "
            f"{_listed(candidates)}; install CANN's toolkit and source its set_env.sh"
        )
    return folder


def _listed(folders: Iterable[Path]) -> str:
    return ", ".join(map(str, folders))
