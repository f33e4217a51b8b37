# SPDX-License-Identifier: Apache-2.0
"""What onnxruntime computes from a file, beside what the network computes that was exported."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import nn

from tolerances import assert_close


def run(path: str, *inputs: ms.Tensor) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_inputs()]
    return session.run(None, dict(zip(names, (tensor.asnumpy() for tensor in inputs))))


def outputs_of(net: nn.Cell, *inputs: ms.Tensor) -> list[np.ndarray]:
    """The outputs of a network, those in tuples too, one after another."""
    return _leaves(net(*inputs))


def _leaves(value: ms.Tensor | Sequence) -> list[np.ndarray]:
    if isinstance(value, ms.Tensor):
        return [value.asnumpy()]
    return [leaf for item in value for leaf in _leaves(item)]


def assert_all_close(
    actual: list[np.ndarray], expected: list[np.ndarray], tolerance: float = 1e-5
) -> None:
    """Also that dtypes are the same."""
    assert len(actual) == len(expected) > 0
    for i, (ours, theirs) in enumerate(zip(actual, expected)):
        assert ours.dtype == theirs.dtype, f"output {i}: {ours.dtype}, expected {theirs.dtype}"
        ours, theirs = (array.astype(np.float64) for array in (ours, theirs))
        assert_close(ours, theirs, "float32", f"output {i}", tolerance)
