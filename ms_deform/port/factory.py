# SPDX-License-Identifier: Apache-2.0
"""What a command line names: "package.module:Factory", or "file.py:Factory(num_feat=16)"."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import mindspore as ms

from ms_deform.errors import first_line
from ms_deform.port import PortError

_FORMS = (
    "name it package.module:factory, from a directory where the package can be imported, or "
    "path/to/file.py:factory; arguments must be literals: 'net:Net(num_feat=16)'"
)
# No line of these is where a user's mistake lies.
_NOT_THE_USERS = ("mindspore", "torch", "torchvision", "importlib", "ms_deform")


def make(name: str) -> object:
    """What a factory makes, named with its module or file, and with literal arguments or none.

    Raises:
        PortError: If there is no such factory, or it does not take the arguments, or raises.
    """
    source, _, call = name.partition(":")
    attribute, arguments, keywords = _parse_call(name, call)
    module = _import(name, source)
    factory = getattr(module, attribute, None)
    if not _is_factory(factory):
        raise PortError(f"no factory {name!r}: {source} has {_factories(module)}")
    _check_arguments(f"{source}:{attribute}", factory, arguments, keywords)
    try:
        return factory(*arguments, **keywords)
    except (Exception, SystemExit) as error:
        raise PortError(f"{name} fails, mend it there: {reason_of(error)}") from error


def _parse_call(name: str, call: str) -> tuple[str, list, dict]:
    try:
        node = ast.parse(call.strip(), mode="eval").body
        function, given, named = node, [], []
        if isinstance(node, ast.Call):
            function, given, named = node.func, node.args, node.keywords
        keywords = {keyword.arg: ast.literal_eval(keyword.value) for keyword in named}
        arguments = [ast.literal_eval(argument) for argument in given]
    except (SyntaxError, ValueError) as error:
        raise PortError(f"no factory {name!r} ({first_line(error)}); {_FORMS}") from error
    if not isinstance(function, ast.Name) or None in keywords:
        raise PortError(f"no factory {name!r}; {_FORMS}")
    return function.id, arguments, keywords


def _import(name: str, source: str) -> ModuleType:
    is_file = source.endswith(".py")
    if not is_file and not all(part.isidentifier() for part in source.split(".")):
        raise PortError(f"no factory {name!r}; {_FORMS}")
    if is_file and not Path(source).is_file():
        raise PortError(f"no factory {name!r}: there is no file {source}")
    try:
        return _import_file(Path(source)) if is_file else importlib.import_module(source)
    except (Exception, SystemExit) as error:  # a script may end so
        absent = isinstance(error, ModuleNotFoundError) and error.name
        if not is_file and f"{source}.".startswith(f"{absent}."):
            raise PortError(f"no factory {name!r} ({first_line(error)}); {_FORMS}") from error
        raise PortError(
            f"{source} cannot be imported, mend it there: {reason_of(error)}"
        ) from error


def _import_file(path: Path) -> ModuleType:
    """Imports a file as Python starts one: what lies beside it can be imported as well."""
    path = path.resolve()
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    # Graph mode finds the source of a cell through its module's name.
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _is_factory(value: object) -> bool:
    torch = sys.modules.get("torch")  # a module that lies about has imported it
    networks = (ms.nn.Cell, torch.nn.Module) if torch else ms.nn.Cell
    return callable(value) and not isinstance(value, networks)


def _factories(module: ModuleType) -> list[str]:
    """The factories that a module defines."""
    return [
        name
        for name, value in vars(module).items()
        if _is_factory(value) and getattr(value, "__module__", None) == module.__name__
    ]


def _check_arguments(name: str, factory: Callable, arguments: list, keywords: dict) -> None:
    try:
        signature = inspect.signature(factory)
    except ValueError:
        return  # A builtin's, which is not written down.
    try:
        signature.bind(*arguments, **keywords)
    except TypeError as error:
        takes = list(signature.parameters)
        mend = f"give literals: '{name}({takes[0]}=16)'" if takes else f"name it {name}"
        raise PortError(
            f"{name} takes {', '.join(takes) or 'no arguments'}: {error}; {mend}"
        ) from error


def reason_of(error: BaseException) -> str:
    """Kind and message of an exception, and the last line of the user's that it came through."""
    modules = [sys.modules[name] for name in _NOT_THE_USERS if name in sys.modules]
    libraries = ("<", *(f"{Path(module.__file__).parent}/" for module in modules))
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(libraries)
    ]
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {first_line(error)}{place}"
