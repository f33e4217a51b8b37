# SPDX-License-Identifier: Apache-2.0
"""Sizes around every block that the CPU kernels work in."""

from __future__ import annotations

from functools import cache

import pytest

from element_types import ELEMENT_BYTES
from geometries import Geometry
from kernels import Answer, Kernels, Problem, by_reference, kernels_of_wide_vectors, problem_of


def plane(width: int) -> Geometry:
    return Geometry(channels_in=2, channels_out=3, size=(1, width), kernel=(1, 1), padding=(0, 0))


def channels(channels_in: int, channels_out: int, **changed: object) -> Geometry:
    return Geometry(channels_in=channels_in, channels_out=channels_out, **changed)


SIZES = {
    # Rows of a register block, pixels of a small tile and of a large one, one more than two.
    **{f"{pixels} pixels": plane(pixels) for pixels in (1, 5, 6, 7, 12, 13, 47, 48, 49, 97, 3169)},
    # A vector, a panel, and one more, for every instruction set and both types.
    **{f"{n} channels out": channels(3, n) for n in (7, 8, 9, 16, 17, 31, 33, 64, 65, 129)},
    # Vectors of the sampler, its powers of two, a channel block.
    **{f"{n} channels in": channels(n, 3) for n in (7, 8, 9, 17, 24, 33, 63, 64, 65, 128, 129)},
    "groups of more channels than a block": channels(390, 9, groups=3),
    "more small groups than a block": channels(300, 150, groups=150),
    "groups that leave room in a block": channels(50, 20, groups=10),
    "wide outputs of few groups": channels(4, 2100, groups=2, size=(3, 4)),
    "depthwise beyond a block": channels(131, 131, groups=131),
    "offset groups cut groups": channels(24, 4, groups=4, offset_groups=3),
    "an offset group in several blocks": channels(300, 3, offset_groups=2),
    "several offset groups in a block": channels(24, 3, offset_groups=3),
    "offset groups that leave room in a block": channels(40, 3, offset_groups=8),
    "offset groups beyond a block": channels(260, 2, offset_groups=130),
    "an offset group in several waves": channels(
        130, 1, size=(400, 300), kernel=(1, 1), padding=(0, 0), stride=(97, 53)
    ),
    "more taps than a block": channels(65, 5, kernel=(7, 7), padding=(3, 3), size=(5, 6)),
    "more images than a pass": channels(
        3, 1, batch=5, size=(1000, 701), kernel=(1, 1), padding=(0, 0), stride=(97, 53)
    ),
}


# More channels than a block, and several tiles.
WIDE = {
    f"{height}x{width} kernel": channels(
        130,
        70,
        batch=1,
        groups=2,
        offset_groups=2,
        size=(13, 17),
        kernel=(height, width),
        padding=(height // 2, width // 2),
    )
    for height, width in ((1, 1), (3, 3), (7, 7))
}
LARGE = ("an offset group in several waves", "more images than a pass")
CASES = [
    *((name, "float32") for name in SIZES),
    *((name, "float64") for name in SIZES if name not in LARGE),
    *((name, dtype) for name in WIDE for dtype in ELEMENT_BYTES),
]


@cache
def problem(name: str, dtype: str) -> Problem:
    return problem_of({**SIZES, **WIDE}[name], dtype)


@cache
def expected(name: str, dtype: str) -> Answer:
    return by_reference(problem(name, dtype))


def assert_right(kernels: Kernels, name: str, dtype: str) -> None:
    (actual,) = kernels.solve([problem(name, dtype)], dtype)
    kernels.assert_right(actual, expected(name, dtype), dtype)


@pytest.mark.parametrize("name, dtype", CASES)
def test_output_and_gradients_around_every_block_size(
    cpu_kernels: Kernels, name: str, dtype: str
) -> None:
    assert_right(cpu_kernels, name, dtype)


@pytest.fixture(scope="module")
def wide_vectors(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    return kernels_of_wide_vectors(tmp_path_factory.mktemp("wide_vectors"))


@pytest.mark.long
@pytest.mark.parametrize("name, dtype", [case for case in CASES if case[0] not in LARGE])
def test_the_blocks_of_avx512_on_any_machine(wide_vectors: Kernels, name: str, dtype: str) -> None:
    assert_right(wide_vectors, name, dtype)
