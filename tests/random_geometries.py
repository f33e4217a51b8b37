# SPDX-License-Identifier: Apache-2.0
"""Random geometries, by Hypothesis."""

from __future__ import annotations

from math import lcm

from hypothesis import strategies as st

from geometries import Geometry
from reference import output_size


def pairs(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


@st.composite
def geometries(draw) -> Geometry:
    kernel, stride, dilation = draw(pairs(1, 7)), draw(pairs(1, 3)), draw(pairs(1, 3))
    padding = draw(st.one_of(pairs(0, 3), st.tuples(*[st.integers(0, 3)] * 4)))
    # Output pixels an axis, at least one; a stride may leave input pixels that no tap reaches.
    reach = output_size((0, 0), kernel, (1, 1), padding, dilation)
    size = tuple(max(1, extra + 1 - reach[axis]) for axis, extra in enumerate(draw(pairs(0, 9))))
    groups, offset_groups = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    return Geometry(
        batch=draw(st.integers(0, 3)),
        channels_in=lcm(groups, offset_groups) * draw(st.integers(1, 2)),
        channels_out=groups * draw(st.integers(1, 3)),
        size=size,
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        offset_groups=offset_groups,
        use_mask=draw(st.booleans()),
        use_bias=draw(st.booleans()),
        offset_scale=draw(st.sampled_from([0.0, 0.5, 2.0, 8.0])),
    )
