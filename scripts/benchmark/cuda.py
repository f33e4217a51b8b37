# SPDX-License-Identifier: Apache-2.0
"""The benchmark on an NVIDIA GPU: its sides, the GPU's roof, and extra memory.

Tensors are torch's. This project's library is called through its AOT entry points, as MindSpore
calls it, so that no MindSpore for GPUs is needed.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from benchmark import peers
from benchmark.aot_library import AotLibrary, constants_of, functions_of
from benchmark.roof import Rates
from benchmark.side import Call, Side
from ms_deform.install.library import find_library

if TYPE_CHECKING:
    import torch

# The GPU idles for so many of its cycles, half a millisecond, while a call is queued.
QUEUE_CYCLES = 1_000_000
LONGEST_QUEUE_CYCLES = 64 * QUEUE_CYCLES
CACHE_BYTES = 2**28  # more than any GPU has
# Of matrix products that keep every GPU busy, for some milliseconds.
ROOF_SIZES = {"float64": 2048, "float32": 4096}
LARGEST_ROOF_SIZE = 8192


class OnGpu(Side):
    """Timed by the GPU's own clock, with nothing of its tensors in the caches."""

    pause_seconds = 0.0  # no threads spin
    turn_seconds = 0.05
    queue_cycles = QUEUE_CYCLES

    def seconds(self) -> float:
        import torch

        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        while True:
            # The GPU idles first, while the work is queued: the host's time is not the kernels'.
            torch.cuda._sleep(self.queue_cycles)
            _cache_filler().zero_()
            start.record()
            self()
            end.record()
            in_time = not start.query()
            end.synchronize()
            # A call that waits for the GPU itself never is.
            if in_time or self.queue_cycles >= LONGEST_QUEUE_CYCLES:
                return 1e-3 * start.elapsed_time(end)
            self.queue_cycles *= 2

    def extra_memory(self) -> int:
        """Bytes of the device that a call takes beyond its results."""
        raise NotImplementedError


class MsDeform(OnGpu):
    modules = ("torch",)
    trains = True

    def __init__(self, call: Call) -> None:
        import torch

        dtype = getattr(torch, call.dtype)
        arrays = call.arrays._asdict()
        self.tensors = {
            name: torch.from_numpy(array).to(call.device, dtype) for name, array in arrays.items()
        }
        self.call = call
        self.constants = constants_of(call.row)
        self.library = _library()

    def __call__(self) -> None:
        found = {}
        for function, (inputs, results) in functions_of(self.call.training).items():
            found.update(zip(results, self._queue(function, inputs, results)))
        order = ("grad_output", "input", "offset", "weight", "bias", "mask")
        self.outputs = [found[name] for name in order if name in found]

    def _queue(self, function: str, names: Sequence[str], results: Sequence[str]) -> list:
        import torch

        inputs = [self.tensors[name] for name in names]
        outputs = [torch.empty_like(self.tensors[name]) for name in results]
        tensors = [*inputs, *outputs]
        self.library(
            function,
            [tensor.data_ptr() for tensor in tensors],
            [tensor.shape for tensor in tensors],
            self.call.dtype,
            self.constants,
            torch.cuda.current_stream().cuda_stream,
        )
        return outputs

    def results(self) -> list[np.ndarray]:
        return [
            (tensor if tensor.itemsize > 2 else tensor.float()).cpu().numpy()
            for tensor in self.outputs
        ]

    def extra_memory(self) -> int:
        import torch

        self.library.release_scratch()
        self()
        torch.cuda.synchronize()
        return self.library.scratch_bytes()


class Torchvision(OnGpu, peers.Torchvision):
    def extra_memory(self) -> int:
        import torch

        self.outputs = []
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        self()
        torch.cuda.synchronize()
        results = sum(tensor.nbytes for tensor in self.outputs)
        return torch.cuda.max_memory_allocated() - before - results


class Roof:
    """What the GPU does when nothing else is asked of it: matrix products, and copies."""

    name = "of roof"
    meaning = (
        "of roof: what the call would take at the GPU's rate of matrix products in this dtype, or "
        "at its copy bandwidth with every tensor moved once, whichever is more, over what it took. "
        "The rates are torch's, measured between the turns"
    )

    def __init__(self, dtype: str) -> None:
        import torch

        torch.backends.cuda.matmul.allow_tf32 = False  # float32 is computed in float32 here
        options = {"device": "cuda", "dtype": getattr(torch, dtype)}
        size = ROOF_SIZES.get(dtype, LARGEST_ROOF_SIZE)
        self.factor = torch.randn(size, size, **options)
        self.product = torch.empty_like(self.factor)
        self.source = torch.empty(2**28, dtype=torch.uint8, device="cuda")
        self.target = torch.empty_like(self.source)

    def __call__(self) -> Rates:
        import torch

        flops = 2 * len(self.factor) ** 3
        seconds = _seconds_of(lambda: torch.matmul(self.factor, self.factor, out=self.product))
        copy_seconds = _seconds_of(lambda: self.target.copy_(self.source))
        return Rates(flops / seconds, 2 * self.source.nbytes / copy_seconds)


def _seconds_of(work: Callable[[], object]) -> float:
    import torch

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    work()
    start.record()
    work()
    end.record()
    end.synchronize()
    return 1e-3 * start.elapsed_time(end)


@cache
def _cache_filler() -> torch.Tensor:
    import torch

    return torch.empty(CACHE_BYTES, dtype=torch.uint8, device="cuda")


@cache
def _library() -> AotLibrary:
    folder = TemporaryDirectory()
    atexit.register(folder.cleanup)
    return AotLibrary(find_library("cuda"), Path(folder.name))


def device_name() -> str:
    import torch

    return torch.cuda.get_device_name()
