# SPDX-License-Identifier: Apache-2.0
"""What mmcv's and BasicSR's layers have in common."""

from __future__ import annotations

import math

from mindspore import Tensor, nn, ops
from mindspore.common.initializer import Uniform, Zero, initializer

from ms_deform.geometry import constant_int, errors_of, four_sides
from ms_deform.nn import DeformConv2d


class GroupedDeformConv2d(DeformConv2d):
    """A deformable convolution that is told its offset groups, and starts as mmcv's."""

    groups_keyword = "deform_groups"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int],
        padding: int | tuple[int, int] | tuple[int, int, int, int],
        dilation: int | tuple[int, int],
        groups: int,
        deform_groups: int,
        bias: bool,
        backend: str | None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, backend
        )
        with errors_of(self.caller):
            self.deform_groups = constant_int(self.groups_keyword, deform_groups, 1)
            if in_channels % deform_groups != 0:
                raise ValueError(
                    f"'{self.groups_keyword}' must divide in_channels = {in_channels}, got "
                    f"{deform_groups}"
                )
        # All input channels count, whatever the groups: as mmcv.
        bound = 1 / math.sqrt(in_channels * math.prod(self.kernel_size))
        self.weight.set_data(initializer(Uniform(bound), self.weight.shape))
        if bias:
            self.bias.set_data(initializer(Zero(), self.bias.shape))

    def offset_convolution(self, parts: int) -> nn.Conv2d:
        """An ordinary convolution of the same geometry, zero at first.

        `parts` are 2 for offsets and 3 with a mask.
        """
        return nn.Conv2d(
            self.in_channels,
            parts * self.deform_groups * math.prod(self.kernel_size),
            self.kernel_size,
            self.stride,
            pad_mode="pad",
            padding=four_sides(self.padding),
            dilation=self.dilation,
            has_bias=True,
            weight_init="zeros",
            bias_init="zeros",
        )

    def extend_repr(self) -> str:
        groups = f", {self.groups_keyword}={self.deform_groups}" if self.deform_groups != 1 else ""
        return super().extend_repr() + groups


def offset_and_mask(predicted: Tensor) -> tuple[Tensor, Tensor]:
    """Offsets and masks from what a convolution predicts of both, the masks between 0 and 1."""
    offsets = predicted.shape[1] // 3 * 2
    return predicted[:, :offsets], ops.sigmoid(predicted[:, offsets:])
