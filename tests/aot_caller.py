# SPDX-License-Identifier: Apache-2.0
"""Calls a library's AOT functions without MindSpore, on memory of any device."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from element_types import ELEMENT_BYTES, decoded, encoded
from ms_deform.install.builder import find_compiler, kernel_sources
from ms_deform.install.library import ABI
from reference import Gradients, output_size, pair

Shape = Sequence[int]
# The function, its inputs, and which of them its outputs have the shape of; the forward's output
# and the bias have shapes of their own.
INPUTS = ("input", "offset", "mask", "weight")
GRADIENT_FUNCTIONS = {
    "MsDeformGradInput": ("input", "offset", "mask"),
    "MsDeformGradWeight": ("weight",),
    "MsDeformGradBias": ("bias",),
}


class AotLibrary:
    """The AOT functions of one library."""

    def __init__(self, library: Path, folder: Path) -> None:
        """Compiles what calls them into the folder."""
        caller = folder / "aot_caller.so"
        source = Path(__file__).with_name("aot_caller.cc")
        flags = ["-std=c++17", "-O1", "-shared", "-fPIC", f"-D_GLIBCXX_USE_CXX11_ABI={ABI}"]
        command = [*find_compiler(), *flags, f"-I{kernel_sources()}", source, "-o", caller]
        subprocess.run(command, check=True)
        self._call = ctypes.CDLL(str(caller)).CallAot
        self._library = ctypes.CDLL(str(library))
        self._library.ms_deform_cuda_scratch_bytes.restype = ctypes.c_int64

    def scratch_bytes(self) -> int:
        return self._library.ms_deform_cuda_scratch_bytes()

    def release_scratch(self) -> None:
        self._library.ms_deform_cuda_release_scratch()

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


class Memory(Protocol):
    """A device's memory, as far as a call needs it, and a stream of the device."""

    stream: int

    def upload(self, data: bytes) -> Any: ...

    def download(self, buffer: Any) -> bytes:
        """After all queued work."""

    def address(self, buffer: Any) -> int: ...


class HostMemory:
    stream = 0

    def upload(self, data: bytes) -> Any:
        return ctypes.create_string_buffer(data, len(data))

    def download(self, buffer: Any) -> bytes:
        return bytes(buffer)

    def address(self, buffer: Any) -> int:
        return ctypes.addressof(buffer)


class AotCaller:
    """deform_conv2d and its gradients by one library, from and to NumPy.

    A call is a dict of deform_conv2d's arguments, its arrays in float64.
    """

    def __init__(self, library: AotLibrary, memory: Memory) -> None:
        self.library = library
        self.memory = memory

    def forward(self, call: dict[str, Any], dtype: str) -> np.ndarray:
        shape = (len(call["input"]), len(call["weight"]), *_output_size(call))
        bias = call.get("bias", np.zeros(1))
        (output,) = self._run("MsDeformForward", call, bias, [shape], dtype, False)
        return output

    def gradients(
        self, call: dict[str, Any], grad_output: np.ndarray, dtype: str, deterministic: bool = False
    ) -> Gradients:
        shapes = {name: _array(call, name).shape for name in INPUTS}
        shapes["bias"] = (len(call["weight"]),)
        results = {}
        for function, names in GRADIENT_FUNCTIONS.items():
            outputs = [shapes[name] for name in names]
            arrays = self._run(function, call, grad_output, outputs, dtype, deterministic)
            results.update(zip(names, arrays))
        absent = {name: None for name in ("mask", "bias") if name not in call}
        return Gradients(**{**results, **absent})

    def _run(
        self,
        function: str,
        call: dict[str, Any],
        last: np.ndarray,
        outputs: list[Shape],
        dtype: str,
        deterministic: bool,
    ) -> list[np.ndarray]:
        inputs = [*(_array(call, name) for name in INPUTS), last]
        data = [encoded(array, dtype) for array in inputs]
        # A kernel that leaves an element out leaves a NaN.
        data += [b"\xff" * (int(np.prod(shape)) * ELEMENT_BYTES[dtype]) for shape in outputs]
        buffers = [self.memory.upload(item) for item in data]
        self.library(
            function,
            [self.memory.address(buffer) for buffer in buffers],
            [*(array.shape for array in inputs), *outputs],
            dtype,
            _constants(call, deterministic),
            self.memory.stream,
        )
        return [
            decoded(self.memory.download(buffer), dtype).reshape(shape)
            for buffer, shape in zip(buffers[len(inputs) :], outputs)
        ]


def _array(call: dict[str, Any], name: str) -> np.ndarray:
    return call.get(name, np.zeros(1))


def _constants(call: dict[str, Any], deterministic: bool) -> list[int]:
    padding = call.get("padding", (0, 0))
    if len(padding) == 2:
        padding = np.repeat(padding, 2)
    flags = ["mask" in call, "bias" in call, deterministic]
    return [*pair(call.get("stride", 1)), *padding, *pair(call.get("dilation", 1)), *flags]


def _output_size(call: dict[str, Any]) -> tuple[int, int]:
    return output_size(
        call["input"].shape[2:],
        call["weight"].shape[2:],
        call.get("stride", 1),
        call.get("padding", (0, 0)),
        call.get("dilation", 1),
    )
