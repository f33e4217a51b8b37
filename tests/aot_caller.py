# SPDX-License-Identifier: Apache-2.0
"""The operator by a library's AOT functions, without MindSpore, on memory of any device."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from benchmark.aot_library import GRADIENT_FUNCTIONS, AotLibrary, Shape
from element_types import ELEMENT_BYTES, decoded, encoded
from reference import Gradients, output_size, pair

# Of every function, ahead of the bias or the gradient of the output.
INPUTS = ("input", "offset", "mask", "weight")


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

    A call is a dict of deform_conv2d's arguments, its arrays in float64; a problem has grad_output
    as well.
    """

    def __init__(self, library: AotLibrary, memory: Memory) -> None:
        self.library = library
        self.memory = memory

    def solve(
        self, problems: Sequence[dict[str, Any]], dtype: str, deterministic: bool = False
    ) -> list[tuple[np.ndarray, Gradients]]:
        """The outputs and gradients of problems in values that dtype holds."""
        return [
            (
                self.forward(problem, dtype),
                self.gradients(problem, problem["grad_output"], dtype, deterministic),
            )
            for problem in problems
        ]

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
