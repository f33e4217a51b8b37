# SPDX-License-Identifier: Apache-2.0
"""Calls a library's AOT functions without MindSpore, on memory of any device."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kernel_driver import decoded, encoded
from ms_deform.builder import find_compiler, kernel_sources
from ms_deform.library import ABI
from reference import Gradients, output_size, pair

_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}


class Memory(Protocol):
    """A device's memory, as far as a call needs it. Buffers are held by who makes them."""

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
    """deform_conv2d and its gradients by one library."""

    def __init__(self, library: Path, memory: Memory, folder: Path) -> None:
        caller = folder / "aot_caller.so"
        source = Path(__file__).with_name("aot_caller.cc")
        flags = ["-std=c++17", "-O1", "-shared", "-fPIC", f"-D_GLIBCXX_USE_CXX11_ABI={ABI}"]
        command = [*find_compiler(), *flags, f"-I{kernel_sources()}", source, "-o", caller]
        subprocess.run(command, check=True)
        self.call_aot = ctypes.CDLL(str(caller)).CallAot
        self.library = ctypes.CDLL(str(library))
        self.library.ms_deform_cuda_scratch_bytes.restype = ctypes.c_int64
        self.memory = memory

    def scratch_bytes(self) -> int:
        return self.library.ms_deform_cuda_scratch_bytes()

    def release_scratch(self) -> None:
        self.library.ms_deform_cuda_release_scratch()

    def forward(self, call: dict[str, Any], dtype: str) -> np.ndarray:
        shape = (len(call["input"]), len(call["weight"]), *_output_size(call))
        (output,) = self._run("MsDeformForward", call, call.get("bias"), [shape], dtype)
        return output

    def gradients(
        self, call: dict[str, Any], grad_output: np.ndarray, dtype: str, deterministic: bool = False
    ) -> Gradients:
        shapes = [_array(call, name).shape for name in ("input", "offset", "mask", "weight")]
        functions = {
            "MsDeformGradInput": shapes[:3],
            "MsDeformGradWeight": shapes[3:],
            "MsDeformGradBias": [(len(call["weight"]),)],
        }
        input, offset, mask, weight, bias = (
            result
            for function, outputs in functions.items()
            for result in self._run(function, call, grad_output, outputs, dtype, deterministic)
        )
        return Gradients(
            input,
            offset,
            mask if "mask" in call else None,
            weight,
            bias if "bias" in call else None,
        )

    def _run(
        self,
        function: str,
        call: dict[str, Any],
        last: np.ndarray | None,
        outputs: list[tuple[int, ...]],
        dtype: str,
        deterministic: bool = False,
    ) -> list[np.ndarray]:
        inputs = [_array(call, name) for name in ("input", "offset", "mask", "weight")]
        inputs.append(np.zeros(1) if last is None else last)
        shapes = [*(array.shape for array in inputs), *outputs]
        # A kernel that leaves an element out leaves a NaN.
        data = [encoded(array, dtype) for array in inputs]
        data += [b"\xff" * (int(np.prod(shape)) * _BYTES[dtype]) for shape in outputs]
        buffers = [self.memory.upload(item) for item in data]
        padding = call.get("padding", (0, 0))
        if len(padding) == 2:
            padding = np.repeat(padding, 2)
        flags = ["mask" in call, "bias" in call, deterministic]
        constants = [*pair(call.get("stride", 1)), *padding, *pair(call.get("dilation", 1)), *flags]
        error = ctypes.create_string_buffer(1000)
        status = self.call_aot(
            getattr(self.library, function),
            len(shapes),
            (ctypes.c_void_p * len(shapes))(*map(self.memory.address, buffers)),
            (ctypes.c_int * len(shapes))(*map(len, shapes)),
            (ctypes.POINTER(ctypes.c_int64) * len(shapes))(
                *((ctypes.c_int64 * len(shape))(*shape) for shape in shapes)
            ),
            dtype.encode(),
            ctypes.c_void_p(self.memory.stream),
            (ctypes.c_int64 * len(constants))(*map(int, constants)),
            error,
            len(error),
        )
        if status != 0:
            raise RuntimeError(error.value.decode() or f"{function} returned {status}")
        results = buffers[len(inputs) :]
        return [
            decoded(self.memory.download(buffer), dtype).reshape(shape)
            for buffer, shape in zip(results, outputs)
        ]


def _array(call: dict[str, Any], name: str) -> np.ndarray:
    return call.get(name, np.zeros(1))


def _output_size(call: dict[str, Any]) -> tuple[int, int]:
    return output_size(
        call["input"].shape[2:],
        call["weight"].shape[2:],
        call.get("stride", 1),
        call.get("padding", (0, 0)),
        call.get("dilation", 1),
    )
