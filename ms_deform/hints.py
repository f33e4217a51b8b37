# SPDX-License-Identifier: Apache-2.0
"""What errors say beside the rule that was broken; nothing here runs before there is an error."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from mindspore import Tensor, nn

ORDER = "deform_conv2d(input, offset, weight, bias, stride, padding, dilation, mask)"


def must_be_tensor(what: str, value: object, variable: str) -> str:
    """What to say of a value that is no Tensor; `variable`: what the mend calls it."""
    kind = type(value)
    if isinstance(value, np.ndarray):
        return f"{what} must be a Tensor, got ndarray; wrap it: mindspore.Tensor({variable})"
    if _is_of_torch(value):
        return (
            f"{what} must be a Tensor of MindSpore, got {kind.__module__}.{kind.__qualname__}; "
            f"convert it: mindspore.Tensor({variable}.detach().cpu().numpy())"
        )
    return f"{what} must be a Tensor, got {kind.__name__}"


def is_foreign_array(value: object) -> bool:
    """Whether it holds numbers as a Tensor does, but for another library."""
    return isinstance(value, np.ndarray) or _is_of_torch(value)


def _is_of_torch(value: object) -> bool:
    """Told by the name of its class: PyTorch need not be there."""
    kind = type(value)
    return kind.__module__.partition(".")[0] == "torch" and hasattr(value, "detach")


def order_of_arguments(caller: str, value: object) -> str:
    """For ints in the place of bias or mask, where mmcv's functions have stride or dilation."""
    items = value if isinstance(value, (tuple, list)) else (value,)
    if caller == "deform_conv2d" and items and all(type(item) is int for item in items):
        return f"; the order of arguments is {ORDER}, not mmcv's"
    return ""


def name_layer(error: Exception, caller: str, layer: Callable[[], nn.Cell] | None) -> None:
    """Puts a layer's name in its network into the error, as its parameters tell it."""
    cell = layer and layer()
    name, _, own = cell.weight.name.rpartition(".") if cell else ("", "", "")
    text = str(error)
    if name and own == "weight" and text.startswith(f"{caller}: "):
        error.args = (text.replace(caller, f"{caller} ({name})", 1),)


def check_inputs(caller: str, inputs: tuple[Tensor, ...]) -> None:
    """The inputs that an export is called with.

    Raises:
        TypeError: If one of them is not a Tensor.
    """
    for position, value in enumerate(inputs):
        if not isinstance(value, Tensor):
            raise TypeError(f"{caller}: {must_be_tensor(f'input {position}', value, 'array')}")
