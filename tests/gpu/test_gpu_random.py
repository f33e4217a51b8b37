# SPDX-License-Identifier: Apache-2.0
"""The CUDA kernels give the reference's answers on a GPU, whatever the geometry."""

from __future__ import annotations

import pytest

pytest.importorskip("hypothesis", reason="needs hypothesis, to draw geometries")

from hypothesis import given, settings
from hypothesis import strategies as st

from element_types import ELEMENT_BYTES
from geometries import Geometry
from kernels import Kernels, by_reference, problem_of
from random_geometries import geometries


@given(
    geometry=geometries(), seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from([*ELEMENT_BYTES])
)
@settings(max_examples=200, deadline=None)
def test_random_geometries_are_right(
    kernels: Kernels, geometry: Geometry, seed: int, dtype: str
) -> None:
    problem = problem_of(geometry, dtype, seed)
    (answer,) = kernels.solve([problem], dtype)
    kernels.assert_right(answer, by_reference(problem), dtype)
