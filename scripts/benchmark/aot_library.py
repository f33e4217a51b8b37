# SPDX-License-Identifier: Apache-2.0
"""Calls a library's AOT functions without MindSpore, on memory of any device."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmark.rows import Row
from ms_deform.install.builder import find_compiler, kernel_sources
from ms_deform.install.library import ABI, read_info

Shape = Sequence[int]
# The functions of the gradients, and what their outputs have the shapes of.
GRADIENT_FUNCTIONS = {
    "MsDeformGradInput": ("input", "offset", "mask"),
    "MsDeformGradWeight": ("weight",),
    "MsDeformGradBias": ("bias",),
}


def functions_of(training: bool) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """The functions of a pass: their inputs, and what their outputs have the shapes of."""
    inputs = ("input", "offset", "mask", "weight")
    functions = {"MsDeformForward": ((*inputs, "bias"), ("grad_output",))}
    if training:
        for name, results in GRADIENT_FUNCTIONS.items():
            functions[name] = ((*inputs, "grad_output"), results)
    return functions


def constants_of(row: Row) -> list[int]:
    """What a call of `AotLibrary` takes."""
    return [*(row.s,) * 2, *(row.padding,) * 4, 1, 1, True, True, False]


class AotLibrary:
    """The AOT functions of one library."""

    def __init__(self, library: Path, folder: Path) -> None:
        """Compiles what calls them into the folder, unless it is there."""
        caller = folder / "aot_caller.so"
        if not caller.exists():
            source = Path(__file__).with_name("aot_caller.cc")
            flags = ["-std=c++17", "-O1", "-shared", "-fPIC", f"-D_GLIBCXX_USE_CXX11_ABI={ABI}"]
            command = [*find_compiler(), *flags, f"-I{kernel_sources()}", source, "-o", caller]
            subprocess.run(command, check=True)
        self._call = ctypes.CDLL(str(caller)).CallAot
        self._library = ctypes.CDLL(str(library))
        self._target = read_info(library).target

    def isa(self) -> str:
        return self._own("isa", ctypes.c_char_p)().decode()

    def last_error(self) -> str:
        return self._own("last_error", ctypes.c_char_p)().decode()

    def scratch_bytes(self) -> int:
        return self._own("scratch_bytes", ctypes.c_int64)()

    def release_scratch(self) -> None:
        self._own("release_scratch", None)()

    def _own(self, name: str, returns: type | None) -> Callable[[], Any]:
        """The function that the library's target has under a name of its own."""
        function = getattr(self._library, f"ms_deform_{self._target}_{name}")
        function.restype = returns
        return function

    def __call__(
        self,
        function: str,
        addresses: Sequence[int],
        shapes: Sequence[Shape],
        dtype: str,
        constants: Sequence[int],
        stream: int = 0,
    ) -> None:
        """Queues a function on the stream, its inputs and then its outputs at the addresses.

        constants: stride (2), padding (4), dilation (2), use_mask, use_bias, deterministic.
        """
        error = ctypes.create_string_buffer(1000)
        status = self._call(
            getattr(self._library, function),
            len(shapes),
            (ctypes.c_void_p * len(shapes))(*addresses),
            (ctypes.c_int * len(shapes))(*map(len, shapes)),
            (ctypes.POINTER(ctypes.c_int64) * len(shapes))(
                *((ctypes.c_int64 * len(shape))(*shape) for shape in shapes)
            ),
            dtype.encode(),
            ctypes.c_void_p(stream),
            (ctypes.c_int64 * len(constants))(*map(int, constants)),
            error,
            len(error),
        )
        if status != 0:
            raise RuntimeError(error.value.decode() or f"{function} returned {status}")
