# SPDX-License-Identifier: Apache-2.0
"""A call queues its work on the given stream, waits for nothing, and bounds its scratch."""

from __future__ import annotations

import time
from typing import Any

import pytest

from benchmark.aot_library import GRADIENT_FUNCTIONS, AotLibrary

torch = pytest.importorskip("torch", reason="needs torch, to keep a GPU busy")
if not torch.cuda.is_available():
    pytest.skip("torch has no NVIDIA GPU here", allow_module_level=True)

CONSTANTS = [1, 1, 1, 1, 1, 1, 1, 1, True, True, False]
BUSY_CYCLES = 2_000_000_000  # about a second


class Layer:
    """The tensors of a 3x3 layer with padding 1 on the GPU."""

    def __init__(self, batch: int, channels: int, height: int, width: int, dtype: str) -> None:
        shapes = {
            "input": (batch, channels, height, width),
            "offset": (batch, 18, height, width),
            "mask": (batch, 9, height, width),
            "weight": (channels, channels, 3, 3),
            "bias": (channels,),
            "grad_output": (batch, channels, height, width),
        }
        self.dtype = dtype
        self.tensors = {
            name: torch.randn(shape, device="cuda", dtype=getattr(torch, dtype))
            for name, shape in shapes.items()
        }
        self.output = torch.full_like(self.tensors["grad_output"], torch.nan)
        torch.cuda.synchronize()

    def forward(self, library: AotLibrary, stream: int = 0) -> None:
        self._queue(library, "MsDeformForward", "bias", [self.output], stream)

    def backward(self, library: AotLibrary, stream: int = 0) -> dict[str, torch.Tensor]:
        gradients = {}
        for function, names in GRADIENT_FUNCTIONS.items():
            outputs = {name: torch.empty_like(self.tensors[name]) for name in names}
            self._queue(library, function, "grad_output", [*outputs.values()], stream)
            gradients.update(outputs)
        return gradients

    def _queue(
        self, library: AotLibrary, function: str, last: str, outputs: list[Any], stream: int
    ) -> None:
        names = ("input", "offset", "mask", "weight", last)
        tensors = [*(self.tensors[name] for name in names), *outputs]
        addresses = [tensor.data_ptr() for tensor in tensors]
        shapes = [tensor.shape for tensor in tensors]
        library(function, addresses, shapes, self.dtype, CONSTANTS, stream)


@pytest.fixture
def layer() -> Layer:
    return Layer(2, 64, 40, 40, "float32")


def warm_up(library: AotLibrary, layer: Layer, stream: torch.cuda.Stream) -> None:
    """Loads the kernels and takes the memory, for which CUDA waits for the GPU."""
    torch.cuda._sleep(1)
    layer.forward(library, stream.cuda_stream)
    layer.backward(library, stream.cuda_stream)
    torch.cuda.synchronize()


def test_a_call_returns_before_the_stream_gets_to_it(library: AotLibrary, layer: Layer) -> None:
    stream = torch.cuda.Stream()
    warm_up(library, layer, stream)
    with torch.cuda.stream(stream):
        torch.cuda._sleep(BUSY_CYCLES)
    start = time.perf_counter()
    layer.forward(library, stream.cuda_stream)
    layer.backward(library, stream.cuda_stream)
    queued = time.perf_counter() - start
    assert not stream.query(), f"the stream was done after {queued:.3f} s"
    stream.synchronize()
    assert torch.isfinite(layer.output).all()


def test_other_streams_are_not_waited_for(library: AotLibrary, layer: Layer) -> None:
    stream = torch.cuda.Stream()
    warm_up(library, layer, stream)
    torch.cuda._sleep(BUSY_CYCLES)  # on the default stream
    layer.forward(library, stream.cuda_stream)
    layer.backward(library, stream.cuda_stream)
    stream.synchronize()
    assert not torch.cuda.default_stream().query()


def test_scratch_is_bounded_whatever_the_batch_and_given_back(library: AotLibrary) -> None:
    library.release_scratch()
    layer = Layer(256, 128, 64, 64, "float32")
    layer.forward(library)
    layer.backward(library)
    torch.cuda.synchronize()
    columns = layer.tensors["input"].nbytes * 9
    assert 0 < library.scratch_bytes() <= 0.05 * columns
    library.release_scratch()
    assert library.scratch_bytes() == 0


def test_images_beyond_32_bit_indices(library: AotLibrary) -> None:
    """The last of many images gets the answer that it gets alone."""
    batch, channels, size = 9, 256, 1024
    needed = 4.5 * batch * channels * size**2 * 2
    if torch.cuda.mem_get_info()[0] < needed:
        pytest.skip(f"needs {needed / 1e9:.0f} GB of free memory on the GPU")
    layer = Layer(batch, channels, size, size, "float16")
    assert layer.output.numel() > 2**31
    alone = Layer(1, channels, size, size, "float16")
    for name, tensor in layer.tensors.items():
        shared = name in ("weight", "bias")
        alone.tensors[name] = tensor if shared else tensor[-1:].clone()
    layer.forward(library)
    alone.forward(library)
    gradients, expected = layer.backward(library), alone.backward(library)
    torch.cuda.synchronize()
    assert torch.equal(layer.output[-1:], alone.output)
    for name in ("input", "offset", "mask"):
        largest = expected[name].abs().max().item()
        assert largest > 0
        # Atomic additions come in any order: a rounding to float16 may differ.
        torch.testing.assert_close(
            gradients[name][-1:], expected[name], rtol=1e-3, atol=1e-3 * largest
        )
