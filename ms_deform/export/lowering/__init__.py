# SPDX-License-Identifier: Apache-2.0
"""The table from MindSpore's primitives to ONNX, a module a subject.

To add a primitive: a function in the module of its subject, under ``@lowers`` with its name, and
its case in ``tests/test_onnx_operators.py``. Needs the package onnx.
"""

from ms_deform.export.lowering import (  # noqa: F401 - each fills the table
    elementwise,
    linear,
    pooling,
    reductions,
    resampling,
    shapes,
)
from ms_deform.export.lowering.interface import LOWERINGS, Builder, Call, Tensor, Unsupported

__all__ = ["LOWERINGS", "Builder", "Call", "Tensor", "Unsupported"]
