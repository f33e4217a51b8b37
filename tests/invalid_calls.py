# SPDX-License-Identifier: Apache-2.0
"""Calls that must be refused: what is changed in a valid call (networks.call_tensors, padding 1),
and what the error says."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import mindspore as ms
import numpy as np


class InvalidShapes(NamedTuple):
    """Shapes that replace those of the valid call; None: the argument is left out."""

    message: str  # a regular expression
    shapes: dict[str, tuple[int, ...] | None]
    constants: Mapping[str, Any] = MappingProxyType({})

    def tensors(self) -> dict[str, ms.Tensor | None]:
        return {
            name: None if shape is None else ms.Tensor(np.zeros(shape, np.float32))
            for name, shape in self.shapes.items()
        }


# The valid call: input (2, 4, 7, 9), offset (2, 36, 7, 9), weight (6, 2, 3, 3), bias (6,),
# mask (2, 18, 7, 9).
INVALID_SHAPES = {
    "input of rank 3": InvalidShapes(
        r"'input' must be a 4-D tensor \[N, C_in, H, W\], got shape \(4, 7, 9\)",
        {"input": (4, 7, 9)},
    ),
    "offset of rank 5": InvalidShapes(
        r"'offset' must be a 4-D tensor .*, got shape \(2, 36, 7, 9, 1\)",
        {"offset": (2, 36, 7, 9, 1)},
    ),
    "weight of rank 3": InvalidShapes(
        r"'weight' must be a 4-D tensor .*, got shape \(6, 2, 9\)", {"weight": (6, 2, 9)}
    ),
    "mask of rank 2": InvalidShapes(
        r"'mask' must be a 4-D tensor .*, got shape \(2, 18\)", {"mask": (2, 18)}
    ),
    "bias of rank 2": InvalidShapes(
        r"'bias' must be a 1-D tensor \[C_out\], got shape \(6, 1\)", {"bias": (6, 1)}
    ),
    "weight without input channels": InvalidShapes(
        r"'weight' must have at least one input channel .*, got shape \(6, 0, 3, 3\)",
        {"weight": (6, 0, 3, 3)},
    ),
    "empty kernel": InvalidShapes(
        r"a kernel of at least 1x1, got shape \(6, 2, 0, 3\)", {"weight": (6, 2, 0, 3)}
    ),
    "channels not a multiple of the weight's": InvalidShapes(
        r"input.shape\[1\] must be a positive multiple of weight.shape\[1\] .*, got 4 and 3",
        {"weight": (6, 3, 3, 3)},
    ),
    "no input channels": InvalidShapes(
        r"input.shape\[1\] must be a positive multiple of weight.shape\[1\] .*, got 0 and 2",
        {"input": (2, 0, 7, 9)},
    ),
    "outputs not a multiple of groups": InvalidShapes(
        r"weight.shape\[0\] must be a multiple of groups = .* = 2, got 5",
        {"weight": (5, 2, 3, 3), "bias": (5,)},
    ),
    "too few offset channels": InvalidShapes(
        r"the shape of the offset is not valid: .* = 18, got 17", {"offset": (2, 17, 7, 9)}
    ),
    "no offset channels": InvalidShapes(
        r"the shape of the offset is not valid: .* = 18, got 0", {"offset": (2, 0, 7, 9)}
    ),
    "offset groups that do not divide the channels": InvalidShapes(
        r"input.shape\[1\] must be a multiple of the offset groups = .* = 3, got 4",
        {"offset": (2, 54, 7, 9), "mask": (2, 27, 7, 9)},
    ),
    "offset of another batch": InvalidShapes(
        r"offset.shape\[0\] must be the batch size of the input = 2, got 3",
        {"offset": (3, 36, 7, 9)},
    ),
    "offset of another size": InvalidShapes(
        r"offset.shape\[2:\] must be the output size \(7, 9\), got \(7, 8\)",
        {"offset": (2, 36, 7, 8)},
    ),
    "too few mask channels": InvalidShapes(
        r"mask.shape\[1\] is not valid: .* = 18, got 9", {"mask": (2, 9, 7, 9)}
    ),
    "mask of another batch": InvalidShapes(
        r"mask.shape\[0\] must be the batch size of the input = 2, got 1", {"mask": (1, 18, 7, 9)}
    ),
    "mask of another size": InvalidShapes(
        r"mask.shape\[2:\] must be the output size \(7, 9\), got \(6, 9\)", {"mask": (2, 18, 6, 9)}
    ),
    "bias of another length": InvalidShapes(
        r"bias.shape\[0\] must be weight.shape\[0\] = 6, got 7", {"bias": (7,)}
    ),
    "empty input": InvalidShapes(r"input height must be positive, got 0", {"input": (2, 4, 0, 9)}),
    "output empty in height": InvalidShapes(
        r"the output would be empty: padded input height 3 is smaller than .* height 5",
        {"input": (2, 4, 1, 9), "offset": (2, 36, 1, 9), "mask": (2, 18, 1, 9)},
        {"dilation": (2, 1)},
    ),
    "output empty in width": InvalidShapes(
        r"the output would be empty: padded input width 3 is smaller than .* width 7",
        {"input": (2, 4, 7, 1), "offset": (2, 36, 7, 1), "mask": (2, 18, 7, 1)},
        {"dilation": (1, 3)},
    ),
    "more pixels than 32 bits count": InvalidShapes(
        r"the padded input has 80007 x 80009 pixels, more than the 2147483647 that are supported",
        {},
        {"padding": 40000},
    ),
}

# Constants that are refused, with the exception and the message.
INVALID_CONSTANTS = {
    "stride 0": (ValueError, "'stride' must be at least 1, got 0", {"stride": 0}),
    "one stride 0": (ValueError, r"'stride' must be at least 1, got \(1, 0\)", {"stride": (1, 0)}),
    "negative stride": (ValueError, "'stride' must be at least 1, got -1", {"stride": -1}),
    "negative padding": (ValueError, "'padding' must be at least 0, got -1", {"padding": -1}),
    "dilation 0": (ValueError, "'dilation' must be at least 1, got 0", {"dilation": 0}),
    "three strides": (ValueError, r"'stride' must be an int or 2 ints", {"stride": (1, 1, 1)}),
    "three paddings": (ValueError, "'padding' must be an int or 2 or 4 ints", {"padding": [1] * 3}),
    "empty dilation": (ValueError, r"'dilation' must be an int or 2 ints", {"dilation": ()}),
    "float stride": (TypeError, r"'stride' must be .*, got 1.0 of type float", {"stride": 1.0}),
    "bool padding": (TypeError, r"'padding' must be .*, got True of type bool", {"padding": True}),
    "string stride": (TypeError, r"'stride' must be .*, got 'same'", {"stride": "same"}),
    "no stride": (TypeError, r"'stride' must be .*, got None or a variable", {"stride": None}),
    "Tensor as stride": (
        TypeError,
        r"'stride' must be .*; a Tensor or a variable cannot be used",
        {"stride": ms.Tensor(2)},
    ),
}

# What every hint at the mistake behind wrong shapes begins with.
HINT = "it looks like "

_MASKS_TOO = HINT + "offsets and masks in one tensor: split that of mmcv's conv_offset by `o1, o2"
_CHANNELS_LAST = HINT + r"\[N, H, W, C\]: pass input.transpose\(0, 3, 1, 2\)"
_ANY = r"\.transpose\(0, 3, 1, 2\)"

# Refused calls with a mistake that is plain from the shapes, and so has a hint.
PLAIN_MISTAKES = {
    "masks in an offset of one group": InvalidShapes(
        rf"offset.shape\[1\] must be a positive multiple of .* = 18, got 27; {_MASKS_TOO}",
        {"offset": (2, 27, 7, 9), "mask": None},
    ),
    "masks in an offset of two groups": InvalidShapes(
        rf"must be a multiple of the offset groups = .* = 3, got 4; {_MASKS_TOO}",
        {"offset": (2, 54, 7, 9), "mask": None},
    ),
    "masks in the offset, and given too": InvalidShapes(
        rf"must be a multiple of the offset groups = .* = 3, got 4; {_MASKS_TOO}",
        {"offset": (2, 54, 7, 9)},
    ),
    "masks in an offset that could be without, and given too": InvalidShapes(
        rf"mask.shape\[1\] is not valid: .* = 54, got 36; {_MASKS_TOO}",
        {"input": (2, 12, 7, 9), "offset": (2, 108, 7, 9), "mask": (2, 36, 7, 9)},
    ),
    "channels last in the input": InvalidShapes(
        rf"weight.shape\[1\] = C_in / groups, got 7 and 2; {_CHANNELS_LAST}$",
        {"input": (2, 7, 9, 4)},
    ),
    "channels last in input and offset": InvalidShapes(
        rf"weight.shape\[1\] = C_in / groups, got 7 and 2; {_CHANNELS_LAST}, offset{_ANY}$",
        {"input": (2, 7, 9, 4), "offset": (2, 7, 9, 36), "mask": None},
    ),
    "channels last in input, offset and mask": InvalidShapes(
        rf"got 7 and 2; {_CHANNELS_LAST}, offset{_ANY}, mask{_ANY}$",
        {"input": (2, 7, 9, 4), "offset": (2, 7, 9, 36), "mask": (2, 7, 9, 18)},
    ),
    "channels last where height fits too": InvalidShapes(
        rf"offset.shape\[2:\] must be the output size \(9, 4\), got \(8, 9\); {_CHANNELS_LAST}$",
        {
            "input": (2, 8, 9, 4),
            "offset": (2, 36, 8, 9),
            "mask": (2, 18, 8, 9),
            "weight": (8, 2, 3, 3),
            "bias": (8,),
        },
    ),
    "mmcv's order": InvalidShapes(
        r"'bias' must be a 1-D tensor \[C_out\], got shape \(6, 2, 3, 3\); "
        rf"{HINT}mmcv's order of arguments, here it is deform_conv2d\(input, offset, weight, bias, "
        r"stride, padding, dilation, mask\)",
        {"weight": (2, 18, 7, 9), "bias": (6, 2, 3, 3), "mask": None},
    ),
}

# Refused calls that are nearly of that kind: what is wrong with them is not plain.
NEAR_MISSES = {
    "an offset of three groups, with its mask": InvalidShapes(
        r"must be a multiple of the offset groups = .* = 3, got 4",
        {"offset": (2, 54, 7, 9), "mask": (2, 27, 7, 9)},
    ),
    "a mask of three groups for the offset": InvalidShapes(
        r"offset.shape\[1\] must be a positive multiple of .* = 18, got 27",
        {"offset": (2, 27, 7, 9), "mask": (2, 54, 7, 9)},
    ),
    "three times as many channels as nothing here has": InvalidShapes(
        r"offset.shape\[1\] must be a positive multiple of .* = 18, got 51",
        {"offset": (2, 51, 7, 9), "mask": None},
    ),
    "masks in an offset whose groups do not divide the channels": InvalidShapes(
        r"offset.shape\[1\] must be a positive multiple of .* = 18, got 81",
        {"offset": (2, 81, 7, 9), "mask": None},
    ),
    "masks in an offset of another size": InvalidShapes(
        r"offset.shape\[1\] must be a positive multiple of .* = 18, got 27",
        {"offset": (2, 27, 7, 8), "mask": None},
    ),
    "an image as wide as the weight has channels": InvalidShapes(
        r"weight.shape\[1\] = C_in / groups, got 3 and 2",
        {"input": (2, 3, 7, 4)},
    ),
    "channels last in the offset only": InvalidShapes(
        r"offset.shape\[1\] must be a positive multiple of .* = 18, got 7",
        {"offset": (2, 7, 9, 36), "mask": None},
    ),
    "a bias like a kernel": InvalidShapes(
        r"'bias' must be a 1-D tensor \[C_out\], got shape \(6, 2, 3, 3\)",
        {"bias": (6, 2, 3, 3)},
    ),
    "a weight like a mask of another kernel than the bias": InvalidShapes(
        r"weight.shape\[1\] = C_in / groups, got 4 and 18",
        {"weight": (2, 18, 7, 9), "bias": (6, 2, 3, 5), "mask": None},
    ),
}
