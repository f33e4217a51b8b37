# SPDX-License-Identifier: Apache-2.0
"""setuptools' build backend, with commands (named in setup.cfg) that build the libraries."""

from __future__ import annotations

from pathlib import Path

from setuptools.build_meta import *  # noqa: F403
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py
from setuptools.errors import ExecError

from ms_deform.install import builder


class BuildPy(build_py):
    def run(self) -> None:
        super().run()
        try:
            # bdist_wheel's option --plat-name names another machine than this one.
            _check_machine(self.get_finalized_command("bdist_wheel").plat_name)
            if self.editable_mode:
                builder.build(directory=builder.PACKAGE / "lib")
            else:
                # Built outside the package tree: the builder's lock file must not travel.
                library = builder.build(directory=self.get_finalized_command("build").build_temp)
                destination = Path(self.build_lib, "ms_deform", "lib")
                self.mkpath(str(destination))
                self.copy_file(str(library), str(destination))
        except builder.BuildError as error:
            raise ExecError(str(error)) from error


class BdistWheel(bdist_wheel):
    def finalize_options(self) -> None:
        # The wheel is for one platform, although setuptools builds no extension module.
        self.distribution.has_ext_modules = lambda: True
        super().finalize_options()

    def get_tag(self) -> tuple[str, str, str]:
        # The library knows MindSpore's kernel interface only, not Python's: any Python 3 will do.
        return "py3", "none", super().get_tag()[2]


def _check_machine(platform: str) -> None:
    """Refuses to pack a library of one machine into a wheel of another."""
    machine = builder.compiler_machine()
    if not platform.endswith(("-" + machine, "_" + machine)):
        raise ExecError(
            f"ms_deform: the package is for {platform}, the compiler for {machine}; name a "
            "compiler for it in CXX"
        )
