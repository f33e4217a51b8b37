# SPDX-License-Identifier: Apache-2.0
"""MindSpore's packed offsets and masks, `[all x | all y | mask]`, with this project's kernels."""

from __future__ import annotations

import numpy as np
from mindspore import ops

from ms_deform import deform_conv2d, deformable_conv2d, pack_offset, unpack_offset

shapes = {"input": (1, 4, 8, 8), "weight": (2, 4, 3, 3), "packed": (1, 27, 8, 8)}
input, weight, packed = (ops.randn(shape) for shape in shapes.values())

# As ops.deformable_conv2d takes them,
output = deformable_conv2d(input, weight, packed, (3, 3), (1, 1, 1, 1), (1, 1, 1, 1))
# as torchvision does,
offset, mask = unpack_offset(packed)
same = deform_conv2d(input, offset, weight, padding=1, mask=mask)
assert np.array_equal(output.asnumpy(), same.asnumpy())
# and back.
assert np.array_equal(pack_offset(offset, mask).asnumpy(), packed.asnumpy())
print("the same bits in both layouts:", output.shape)
