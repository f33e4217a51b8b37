# SPDX-License-Identifier: Apache-2.0
"""Keywords that other libraries' layers take, answered with those of the layer they came to."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from typing import TypeVar, cast

from mindspore import nn

Init = TypeVar("Init", bound=Callable[..., None])

_OFFSET_GROUPS = ("deform_groups", "deformable_groups", "offset_groups", "num_deformable_group")
# Names of one thing in torchvision, mmcv, BasicSR, MindSpore, Paddle, MXNet and TensorFlow.
_SAME = (
    _OFFSET_GROUPS,
    ("in_channels", "in_channel"),
    ("out_channels", "out_channel", "filters", "num_filter"),
    ("kernel_size", "kernel"),
    ("stride", "strides"),
    ("padding", "paddings", "pad"),
    ("dilation", "dilations", "dilate", "dilation_rate"),
    ("groups", "group", "num_group"),
    ("bias", "has_bias", "with_bias", "use_bias"),
)
# What to do without an argument.
_WITHOUT = {
    **dict.fromkeys(
        _OFFSET_GROUPS, "leave it out: the number of offset groups follows from the offset's shape"
    ),
    "im2col_step": "leave it out: it changes no result, and these kernels have no such step",
    "padding_mode": "leave it out: the padding is zeros; pad the input itself for another",
    "pad_mode": "leave it out: 'padding' alone says what is padded, always with zeros",
    "norm_cfg": "leave it out, and call a normalization after the layer",
    "norm": "leave it out, and call a normalization after the layer",
    "act_cfg": "leave it out, and call an activation after the layer",
    "activation": "leave it out, and call an activation after the layer",
    "init_cfg": "leave it out, and set the parameters: layer.weight.set_data(tensor)",
    "weight_init": "leave it out, and set the parameter: layer.weight.set_data(tensor)",
    "bias_init": "leave it out, and set the parameter: layer.bias.set_data(tensor)",
    "data_format": "leave it out: tensors are [N, C, H, W]",
    "dtype": "leave it out, and cast the layer: layer.to_float(mindspore.float16)",
    "device": 'leave it out, and choose it for all: mindspore.set_device("CPU")',
}


def answers_foreign_keywords(init: Init) -> Init:
    """An `__init__` of a layer whose errors for unknown keywords name those that are meant."""
    own = [name for name in inspect.signature(init).parameters if name != "self"]

    @functools.wraps(init)
    def checked(self: nn.Cell, *args: object, **kwargs: object) -> None:
        for keyword, value in kwargs.items():
            if keyword not in own:
                raise TypeError(
                    f"{type(self).__name__}: there is no argument '{keyword}'; "
                    f"{_answer(keyword, value, own)}"
                )
        init(self, *args, **kwargs)

    return cast(Init, checked)


def _answer(keyword: str, value: object, own: Collection[str]) -> str:
    for names in _SAME:
        meant = next((name for name in names if name in own), None)
        if keyword in names and meant is not None:
            return f"it is called '{meant}' here: {meant}={value!r}"
    return _WITHOUT.get(keyword, f"expected {', '.join(own)}")
