# SPDX-License-Identifier: Apache-2.0
"""A backend as someone would add it: the plain convolution of the input, whatever the offsets.

It has the functions of ms_deform.backends.interface.Backend, and nothing else knows it.
"""

from __future__ import annotations

from mindspore.ops.operations import Conv2D


def obstacle(call):
    if call.geometry.offset_groups != 1:
        return f"takes one offset group, got {call.geometry.offset_groups}"
    return None


def prepare(call):
    geometry = call.geometry
    attributes = geometry.attributes
    convolution = Conv2D(
        geometry.out_channels,
        geometry.kernel_size,
        pad_mode="pad",
        pad=attributes.padding,
        stride=attributes.stride,
        dilation=attributes.dilation,
        group=geometry.groups,
    )
    return (convolution,)


def run(prepared, input, offset, mask, weight, bias):
    (convolution,) = prepared
    output = convolution(input, weight)
    return output if bias is None else output + bias.reshape((1, -1, 1, 1))
