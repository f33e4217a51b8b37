# SPDX-License-Identifier: Apache-2.0
"""The two layouts of offsets and mask.

torchvision's offset is [N, offset group, tap, (y, x)], its mask a tensor of its own. The operators
of MindSpore and CANN take one tensor [N, (x, y, mask), offset group, tap], called packed here.
"""

from __future__ import annotations

from mindspore import Tensor, ops


def pack(offset: Tensor, mask: Tensor | None) -> Tensor:
    """The packed tensor; masks of ones where there are none."""
    batch, channels, height, width = offset.shape
    samples = channels // 2
    # Not offset[:, 0::2], not concat: in MindSpore the gradient of a slice with a step fails on a
    # CPU, and any slice of an empty batch in graph mode, as in the gradient of concat.
    y, x = ops.unstack(ops.reshape(offset, (batch, samples, 2, height, width)), 2)
    planes = ops.stack((x, y, ops.ones_like(y) if mask is None else mask), 1)
    return ops.reshape(planes, (batch, 3 * samples, height, width))


def unpack(packed: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """Offset and mask; the mask has no channels where the packed tensor has none."""
    x, y = packed[:, :samples], packed[:, samples : 2 * samples]
    return ops.flatten(ops.stack((y, x), 2), start_dim=1, end_dim=2), packed[:, 2 * samples :]
