# SPDX-License-Identifier: Apache-2.0
"""What a backend is told of a call, and what it answers."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from mindspore import Tensor
from mindspore.common.dtype import Type

from ms_deform.geometry import Geometry


class Call(NamedTuple):
    """A checked call of the operator."""

    geometry: Geometry
    dtype: Type
    device_target: str
    deterministic: bool  # whether gradients must have the same bits in every run
    caller: str  # what the user called, for the texts of errors
    training: bool = True  # whether gradients may be asked for


class Backend(Protocol):
    """What each module of this package defines.

    The default for inference also has ``trains() -> bool``: whether it is that for training too.
    """

    def obstacle(self, call: Call) -> str | None:
        """Why the call cannot be computed, to follow "the backend 'x' "; None if it can.

        A module that names another one in `STAND_IN` has such calls computed there, with a line in
        the log; otherwise they are errors.
        """

    def prepare(self, call: Call) -> tuple[object, ...]:
        """What `run` needs beside the tensors; it runs in Python, also while a graph is compiled.

        Primitives in it are kept by what does not change with the batch and the image's size.
        """

    def run(
        self,
        prepared: tuple[object, ...],
        input: Tensor,
        offset: Tensor,
        mask: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        """The output; in graph mode it is compiled into the graph."""
