# SPDX-License-Identifier: Apache-2.0
"""What holds on MindSpore's GPU target alone; the tests with `device` run there, too."""

from __future__ import annotations

import os

import mindspore as ms
import numpy as np
import pytest
from mindspore import ops

import ms_deform
from gpu_stand_in import VARIABLE
from ms_deform import DeformConv2d, deform_conv2d
from networks import call_tensors, image, random_array
from programs import run_program

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("device")]
on_the_stand_in = pytest.mark.skipif(
    VARIABLE not in os.environ, reason="CUDA does not say what it is called with"
)


STREAMS = """
import sys
import mindspore as ms
from networks import Call, call_tensors

ms.set_device("GPU")
ms.set_context(mode={mode})
net, tensors = Call(), call_tensors()

def call():
    net(**tensors).asnumpy()
    print("called", file=sys.stderr, flush=True)

call()
with ms.hal.StreamCtx(ms.hal.Stream()):
    call()
call()
"""


@on_the_stand_in
def test_kernels_run_on_mindspores_stream_and_on_another_in_its_context(mode: str) -> None:
    program = STREAMS.format(mode=ms.get_context("mode"))
    log = run_program(program, MS_EMULATION_STREAMS="1", GPU_STAND_IN_STREAMS="1").stderr
    made = {line.split()[-1] for line in log.splitlines() if line.startswith("made stream")}
    calls = [
        {line.split()[-1] for line in part.splitlines() if line.startswith("a kernel on stream")}
        for part in log.split("called")[:3]
    ]
    (first,), (inside,), (after,) = calls
    assert {first, inside} <= made
    assert first == after
    # A graph keeps the streams that it was compiled for.
    assert (inside == first) == (mode == "graph")


@on_the_stand_in
@pytest.mark.usefixtures("mode")
def test_the_order_of_blocks_counts_unless_the_gradient_is_deterministic(monkeypatch) -> None:
    def input_gradients() -> list[np.ndarray]:
        gradients = []
        for order in ("ascending", "descending"):
            monkeypatch.setenv("MS_EMULATION_ORDER", order)
            gradients.append(ms.grad(square_of_call)(*call_tensors(8).values()).asnumpy())
        return gradients

    assert not np.array_equal(*input_gradients())
    ms_deform.set_deterministic(True)
    try:
        np.testing.assert_array_equal(*input_gradients())
    finally:
        ms_deform.set_deterministic(False)


def square_of_call(input, offset, weight, bias, mask):
    return ops.square(deform_conv2d(input, offset, weight, bias, padding=1, mask=mask)).sum()


OUT_OF_MEMORY = """
import os
import mindspore as ms
from networks import Call, call_tensors

ms.set_device("GPU")
ms.set_context(mode=ms.PYNATIVE_MODE)
os.environ["MS_EMULATION_FAIL"] = "allocate"
try:
    Call()(**call_tensors()).asnumpy()
except RuntimeError:
    del os.environ["MS_EMULATION_FAIL"]
    print(Call()(**call_tensors()).shape)
"""


@on_the_stand_in
def test_a_lack_of_memory_is_an_error_and_the_next_call_works() -> None:
    assert run_program(OUT_OF_MEMORY).stdout.strip() == "(2, 6, 7, 9)"


@pytest.mark.usefixtures("mode")
def test_bfloat16_is_made_on_the_host() -> None:
    """As the README tells: MindSpore's own Cast has no bfloat16 on a GPU."""
    layer = DeformConv2d(4, 6, 3, padding=1)
    offset = np.zeros((2, 18, 7, 9), np.float32)
    expected = layer(image(), ms.Tensor(offset)).asnumpy()
    for parameter in layer.get_parameters():
        parameter.set_dtype(ms.bfloat16)
    output = layer(ms.Tensor(image().asnumpy(), ms.bfloat16), ms.Tensor(offset, ms.bfloat16))
    assert output.dtype == ms.bfloat16
    np.testing.assert_allclose(output.asnumpy().astype(np.float32), expected, atol=0.03)


def test_mindspore_has_no_cast_to_bfloat16() -> None:
    with pytest.raises(RuntimeError, match="For 'Cast', it does not support"):
        image().astype(ms.bfloat16).asnumpy()


@pytest.mark.xfail(reason="MindSpore keeps the strides of a graph's permuted input for later ones")
def test_mindspore_reads_a_contiguous_input_after_a_permuted_one() -> None:
    square, array = ms.jit(ops.square), random_array((2, 3))
    square(ms.Tensor(array.T.copy()).T)
    np.testing.assert_allclose(square(ms.Tensor(array)).asnumpy(), array**2, rtol=1e-6)
