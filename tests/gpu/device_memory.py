# SPDX-License-Identifier: Apache-2.0
"""A GPU's memory and a stream of its own, by torch or by CuPy: aot_caller.Memory."""

from __future__ import annotations

from typing import Any

import numpy as np


class TorchMemory:
    def __init__(self) -> None:
        import torch

        self._torch = torch
        self._stream = torch.cuda.Stream()
        self.stream = self._stream.cuda_stream

    def architecture(self) -> str:
        return "sm_{}{}".format(*self._torch.cuda.get_device_capability())

    def upload(self, data: bytes) -> Any:
        buffer = self._torch.from_numpy(np.frombuffer(data, np.uint8).copy()).cuda()
        self._torch.cuda.synchronize()
        return buffer

    def download(self, buffer: Any) -> bytes:
        self._torch.cuda.synchronize()
        return buffer.cpu().numpy().tobytes()

    def address(self, buffer: Any) -> int:
        return buffer.data_ptr()


class CupyMemory:
    def __init__(self) -> None:
        import cupy

        self._cupy = cupy
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self.stream = self._stream.ptr

    def architecture(self) -> str:
        return f"sm_{self._cupy.cuda.Device().compute_capability}"

    def upload(self, data: bytes) -> Any:
        buffer = self._cupy.asarray(np.frombuffer(data, np.uint8))
        self._cupy.cuda.Device().synchronize()
        return buffer

    def download(self, buffer: Any) -> bytes:
        self._cupy.cuda.Device().synchronize()
        return self._cupy.asnumpy(buffer).tobytes()

    def address(self, buffer: Any) -> int:
        return buffer.data.ptr


def usable_memory() -> tuple[Any, list[str]]:
    """The first that can be used here, or None, and why those before it cannot."""
    reasons = []
    for name, memory in (("torch", TorchMemory), ("cupy", CupyMemory)):
        try:
            return memory(), reasons
        except Exception as error:  # each package has its own for a GPU that is not there
            reason, _, _ = str(error).partition("\n")
            reasons.append(f"{name} has no NVIDIA GPU here: {reason}")
    return None, reasons
