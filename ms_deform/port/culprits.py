# SPDX-License-Identifier: Apache-2.0
"""Known reasons why a ported layer differs from PyTorch's, found by attributes or by trying."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import mindspore as ms
import numpy as np
import torch
from mindspore import nn
from torch.nn import functional

from ms_deform.port.layers import Evidence, Layer, relative_error

_TANH = (
    "MindSpore's tanh on a CPU is off by up to 1e-4, from 4 on; with half = ops.tanh(0.5 * x) "
    "2 * half / (1 + half * half) is not"
)
# A trial explains what MindSpore has if it leaves this share of the difference.
_EXPLAINED = 0.05


class Culprit(NamedTuple):
    """What differs, with its mend; and whether it is only seen in training."""

    text: str
    in_training: bool = False


def culprits(cell: nn.Cell, module: Layer) -> Iterator[Culprit]:
    """What is known to differ between a layer of MindSpore's and PyTorch's, by their attributes."""
    if isinstance(cell, nn.BatchNorm3d):
        cell = cell.bn2d  # which it is inside
    for types, find in _BY_TYPE:
        if isinstance(module, types):
            yield from find(cell, module)


def notes(layers: Mapping[str, tuple[nn.Cell, Layer]], named: str | None = None) -> list[str]:
    """What is known to differ, though it may not be seen with these inputs, but for a named layer.

    What is seen in training alone is not left out there.
    """
    found: dict[str, list[str]] = {}
    for name, (cell, module) in layers.items():
        for culprit in culprits(cell, module):
            if name != named or culprit.in_training:
                text = culprit.text + " (seen in training only)" * culprit.in_training
                found.setdefault(text, []).append(name or "(network)")
    return [
        f"note: {', '.join(names[:5])}{' ...' * (len(names) > 5)}: {text}"
        for text, names in found.items()
    ]


def _on_cpu() -> bool:
    return ms.get_context("device_target") == "CPU"


def _pair(value: object, count: int) -> tuple:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * count


def _axes(module: Layer) -> int:
    names = [cls.__name__ for cls in type(module).__mro__]
    return next(int(name[-2]) for name in names if name.endswith(("1d", "2d", "3d")))


def _written(values: object) -> object:
    """As layers of any number of axes take it: one number, if that says all."""
    return values[0] if isinstance(values, tuple) and len(set(values)) == 1 else values


def _convolution(cell: nn.Cell, module: Layer) -> Iterator[Culprit]:
    yield from _geometry(cell, module)
    if module.bias is not None and not getattr(cell, "has_bias", True):
        yield Culprit("it has no bias, which PyTorch's has by default: write has_bias=True")
    group = getattr(cell, "group", module.groups)
    if group != module.groups:
        yield Culprit(f"group is {group}, PyTorch's {module.groups}: write group={module.groups}")
    ours, wanted = getattr(cell, "padding", None), _sides(module)
    padded = getattr(cell, "pad_mode", "") == "pad" and wanted is not None
    # MindSpore's one-dimensional kernels have a height of 1.
    if padded and _pair(ours, len(wanted))[-len(wanted) :] != wanted:
        yield Culprit(f"padding is {ours}, PyTorch's {module.padding}: {_pad(module)}")
    if module.padding_mode != "zeros":
        yield Culprit(
            f"PyTorch's pads with {module.padding_mode!r}, MindSpore's convolutions with zeros: "
            "pad before it, such as with nn.ReflectionPad2d"
        )


def _sides(module: Layer) -> tuple[int, ...] | None:
    """PyTorch's padding as MindSpore's convolutions take it: before and after each axis."""
    if isinstance(module.padding, str):
        return None
    return tuple(value for value in module.padding for _ in range(2))


def _pad(module: Layer) -> str:
    """What to write for PyTorch's padding."""
    padding = module.padding if isinstance(module, _POOLINGS) else _sides(module)
    return f'write pad_mode="pad", padding={_written(padding)}'


def _pooling(cell: nn.Cell, module: Layer) -> Iterator[Culprit]:
    yield from _geometry(cell, module)
    if module.ceil_mode and str(getattr(cell, "pad_mode", "pad")).lower() != "pad":
        yield Culprit(
            "PyTorch's has ceil_mode, which MindSpore's has with padding alone: "
            f"{_pad(module)}, ceil_mode=True"
        )


def _geometry(cell: nn.Cell, module: Layer) -> Iterator[Culprit]:
    """Kernel, stride and dilation, and what padding MindSpore has a mode for."""
    axes = _axes(module)
    for name in ("kernel_size", "stride", "dilation"):
        ours, theirs = getattr(cell, name, None), getattr(module, name, None)
        if None in (ours, theirs) or _pair(ours, axes)[-axes:] == _pair(theirs, axes):
            continue
        default = ", which is 1 by default" * (name == "stride" and ours == 1)
        mend = f"write {name}={_written(theirs)}"
        yield Culprit(f"{name} is {ours}{default}, PyTorch's {theirs}: {mend}")
    mode, padding = str(getattr(cell, "pad_mode", "")).lower(), module.padding
    if isinstance(padding, str):
        return
    if mode == "same" and not _pads_alike(module, axes):
        yield Culprit(
            'pad_mode="same", the default of convolutions, pads by the size of the input, at a '
            f"stride of 2 more below than above: {_pad(module)}"
        )
    if mode == "valid" and any(_pair(padding, axes)):
        yield Culprit(f'pad_mode="valid" pads nothing: {_pad(module)}')


def _pads_alike(module: Layer, axes: int) -> bool:
    """Whether "same" is PyTorch's padding for inputs of any size."""
    names = ("kernel_size", "stride", "padding", "dilation")
    values = [_pair(getattr(module, name, 1), axes) for name in names]
    return all(
        2 * padding == dilation * (kernel - 1) and (stride == 1 or kernel == 1)
        for kernel, stride, padding, dilation in zip(*values)
    )


def _norm(cell: nn.Cell, module: Layer) -> Iterator[Culprit]:
    name = "epsilon" if hasattr(cell, "epsilon") else "eps"
    ours = getattr(cell, name, module.eps)
    if not np.isclose(ours, module.eps, rtol=1e-3, atol=0):
        yield Culprit(f"{name} is {ours}, PyTorch's {module.eps}: write {name}={module.eps}")


def _momentum(cell: nn.Cell, module: Layer) -> Iterator[Culprit]:
    # The cell keeps what its argument leaves of 1: PyTorch's momentum.
    ours, theirs = getattr(cell, "momentum", None), module.momentum
    if None not in (ours, theirs) and not np.isclose(ours, theirs):
        yield Culprit(
            f"momentum is {round(1 - ours, 6)}, PyTorch's {theirs}; MindSpore's is one minus "
            f"PyTorch's: write momentum={round(1 - theirs, 6)}",
            in_training=True,
        )


def _instance_norm(cell: nn.Cell, module: Layer) -> Iterator[Culprit]:
    if isinstance(cell, (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)) and _on_cpu():
        count = module.num_features
        yield Culprit(
            "MindSpore's InstanceNorm does not run on a CPU: write nn.GroupNorm instead, "
            f"nn.GroupNorm({count}, {count}, affine={module.affine})"
        )


def _upsample(cell: nn.Cell, module: Layer) -> Iterator[Culprit]:
    ours, theirs = bool(getattr(cell, "align_corners", None)), bool(module.align_corners)
    if ours != theirs:
        yield Culprit(f"align_corners is {ours}, PyTorch's {theirs}: write align_corners={theirs}")
    mode = getattr(cell, "mode", module.mode)
    if mode != module.mode:
        yield Culprit(f"mode is {mode!r}, PyTorch's {module.mode!r}: write mode={module.mode!r}")


def _leaky_relu(cell: nn.Cell, module: Layer) -> Iterator[Culprit]:
    slope = getattr(cell, "alpha", None)
    if slope is not None and not np.isclose(slope, module.negative_slope):
        yield Culprit(
            f"alpha is {slope}, PyTorch's negative_slope {module.negative_slope}, and their "
            f"defaults are 0.2 and 0.01: write alpha={module.negative_slope}"
        )


def _gelu(cell: nn.Cell, module: Layer) -> Iterator[Culprit]:
    ours = getattr(cell, "approximate", None)
    if ours is not None and (ours in (True, "tanh")) != (module.approximate == "tanh"):
        right = module.approximate == "tanh"
        yield Culprit(f"approximate is {not right}, PyTorch's {right}: write approximate={right}")


def _dropout(cell: nn.Cell, module: Layer) -> Iterator[Culprit]:
    ours = getattr(cell, "p", None)
    if ours is not None and ours != module.p:
        yield Culprit(f"p is {ours}, PyTorch's {module.p}: write p={module.p}", in_training=True)


_POOLINGS = (torch.nn.modules.pooling._MaxPoolNd, torch.nn.modules.pooling._AvgPoolNd)
_NORMS = (torch.nn.modules.batchnorm._NormBase, torch.nn.GroupNorm, torch.nn.LayerNorm)
_BY_TYPE = (
    (torch.nn.modules.conv._ConvNd, _convolution),
    (_POOLINGS, _pooling),
    (_NORMS, _norm),
    (torch.nn.modules.batchnorm._BatchNorm, _momentum),
    (torch.nn.modules.instancenorm._InstanceNorm, _instance_norm),
    (torch.nn.Upsample, _upsample),
    (torch.nn.LeakyReLU, _leaky_relu),
    (torch.nn.GELU, _gelu),
    (torch.nn.modules.dropout._DropoutNd, _dropout),
)


# Words of a construct, up to which error they may be to blame, and what is known of them.
_WORDS = (
    ("tanh", 1e-2, _TANH),
    ("interpolate", np.inf, "align_corners, size and mode of interpolate must be PyTorch's"),
    ("grid_sample", np.inf, "align_corners and the modes of grid_sample must be PyTorch's"),
    ("DepthToSpace", np.inf, "DepthToSpace has another channel order than ops.pixel_shuffle"),
    ("SpaceToDepth", np.inf, "SpaceToDepth has another channel order than ops.pixel_unshuffle"),
    ("leaky_relu", np.inf, "the slope of ops.leaky_relu is 0.2 by default, PyTorch's 0.01"),
)


def suspects(cell: nn.Cell, error: float) -> list[str]:
    """What is known of the functions that a user's construct names, if they can err so much."""
    if type(cell).__module__.startswith("ms_deform."):
        return []
    try:
        source = inspect.getsource(type(cell).construct)
    except (OSError, TypeError):
        return []
    texts = [text for word, most, text in _WORDS if error <= most and word in source]
    return [text for text in texts if text != _TANH or _on_cpu()]


Function = Callable[[torch.Tensor], torch.Tensor]


class Trial(NamedTuple):
    """If PyTorch's tensor is one function of what was before, MindSpore's the other."""

    text: str
    theirs: Function
    ours: Function


def tried(evidence: Evidence) -> str | None:
    """What explains both sides, by trying what is often ported wrongly."""
    before, expected = torch.from_numpy(evidence.before), torch.from_numpy(evidence.expected)
    difference = relative_error(evidence.actual, evidence.expected)
    if not before.is_floating_point():
        return None
    for trial in _trials(before, expected):
        try:
            theirs, ours = trial.theirs(before).numpy(), trial.ours(before).numpy()
        except (RuntimeError, ValueError):
            continue  # not of this shape
        errors = relative_error(theirs, evidence.expected), relative_error(ours, evidence.actual)
        if max(errors) <= _EXPLAINED * difference:
            return trial.text
    return None


def _trials(before: torch.Tensor, expected: torch.Tensor) -> Iterator[Trial]:
    yield Trial(_TANH, torch.tanh, _mindspore_tanh)
    exact, approximate = functional.gelu, lambda x: functional.gelu(x, approximate="tanh")
    yield Trial("GELU by tanh, PyTorch's is exact: approximate=False", exact, approximate)
    yield Trial("exact GELU, PyTorch's is by tanh: approximate=True", approximate, exact)
    slopes = (0.01, 0.1, 0.2)
    for theirs, ours in ((a, b) for a in slopes for b in slopes if a != b):
        yield Trial(
            f"a leaky ReLU with a slope of {ours}, PyTorch's has {theirs}; the defaults are 0.2 "
            "and 0.01",
            lambda x, slope=theirs: functional.leaky_relu(x, slope),
            lambda x, slope=ours: functional.leaky_relu(x, slope),
        )
    if before.ndim == expected.ndim == 4:
        yield from _image_trials(before, expected)


def _image_trials(before: torch.Tensor, expected: torch.Tensor) -> Iterator[Trial]:
    def resize(mode: str, align: bool) -> Function:
        size = expected.shape[2:]
        return lambda x: functional.interpolate(x, size, mode=mode, align_corners=align)

    for mode in ("bilinear", "bicubic"):
        for align in (True, False):
            yield Trial(
                f"resized with align_corners={not align}, PyTorch with align_corners={align}",
                resize(mode, align),
                resize(mode, not align),
            )
    order = "channels in the order of {}, [r, r, C], PyTorch's is [C, r, r]: ops.{} has it"
    up, down = expected.shape[2] // before.shape[2], before.shape[2] // expected.shape[2]
    if up > 1:
        yield Trial(
            order.format("DepthToSpace", "pixel_shuffle"),
            lambda x: functional.pixel_shuffle(x, up),
            lambda x: functional.pixel_shuffle(_swapped(x, (up * up, -1)), up),
        )
    if down > 1:
        yield Trial(
            order.format("SpaceToDepth", "pixel_unshuffle"),
            lambda x: functional.pixel_unshuffle(x, down),
            lambda x: _swapped(functional.pixel_unshuffle(x, down), (-1, down * down)),
        )


def _swapped(x: torch.Tensor, channels: tuple[int, int]) -> torch.Tensor:
    """The channels are of two axes: the other one goes first."""
    return x.unflatten(1, channels).transpose(1, 2).flatten(1, 2)


def _mindspore_tanh(x: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(ms.ops.tanh(ms.Tensor(x.numpy())).asnumpy())
