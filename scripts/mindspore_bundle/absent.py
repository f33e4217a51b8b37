# SPDX-License-Identifier: Apache-2.0
"""In the place of a package that a bundle leaves out: all that is imported from it is a class.

A call of it does nothing: MindSpore itself makes some, for the seed and at its end.
"""

from __future__ import annotations

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class Absent(type):
    def __getattr__(cls, name: str) -> Absent:
        return absent(cls.__qualname__, name)

    def __call__(cls, *args: object, **kwargs: object) -> None:
        return None


def absent(owner: str, name: str) -> Absent:
    if name.startswith("__"):  # what Python asks of every class and module
        raise AttributeError(name)
    return Absent(f"{owner}.{name}", (), {"__module__": owner})


class AbsentModule(ModuleType):
    def __getattr__(self, name: str) -> Absent:
        return absent(self.__name__, name)


class AbsentModules(MetaPathFinder, Loader):
    """Every module of this package."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        inside = name.startswith(f"{__name__}.")
        return ModuleSpec(name, self, is_package=True) if inside else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return AbsentModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


sys.modules[__name__].__class__ = AbsentModule
sys.meta_path.insert(0, AbsentModules())
