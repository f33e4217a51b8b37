# SPDX-License-Identifier: Apache-2.0
"""What CANN computes on the AI Core: its written rules, by product and operator.

An operator that its rule refuses goes to the AICPU, which is slow, or fails. Nothing here needs
MindSpore or a device, and nothing here was seen on one: these are the published files that say so.

1. CANN 8.1.RC1, opp/built-in/op_impl/ai_core/tbe/impl/dynamic: `check_supported` of
   deformable_offsets.py and of deformable_offsets_grad.py.
2. CANN 8.1.RC1, opp/built-in/op_impl/ai_core/tbe/config/SOC/aic-SOC-ops-info.json: the operators
   that a product has, and their dtypes.
3. CANN 8.1.RC1, data/platform_config/SOC.ini: `ai_core_cnt` and `ub_size`.
4. ops-cv 9.1.0, image/grid_sample/op_api/aclnn_grid_sampler2d.cpp (`CheckAiCoreSuppport`) and
   image/grid_sampler2_d_grad/op_host/op_api/aclnn_grid_sampler2d_backward.cpp
   (`CheckDtypeAndChannelCanTranspose`).
5. ops-nn 9.1.0, conv/deformable_offsets and conv/deformable_offsets_grad, op_host/*_def.cpp.
6. ops-nn 8.5.0 to 9.1.0, conv/deformable_conv2d/op_host/deformable_conv2d_def.cpp and
   conv/convolution_backward/op_api/deformable_conv2d_backward_checker.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import NamedTuple

DEFORMABLE_OFFSETS = "DeformableOffsets"
DEFORMABLE_OFFSETS_GRAD = "DeformableOffsetsGrad"
GRID_SAMPLER = "GridSampler2D"
GRID_SAMPLER_GRAD = "GridSampler2DGrad"
CONVOLUTION = "aclnnDeformableConv2d"
CONVOLUTION_GRAD = "aclnnDeformableConv2dBackward"
GRADIENTS = {DEFORMABLE_OFFSETS: DEFORMABLE_OFFSETS_GRAD, GRID_SAMPLER: GRID_SAMPLER_GRAD}

# What brings MindSpore's operators to CANN: its aclnn functions and single operators (PyNative, jit
# levels O0 and O1), or its graph engine (O2, MindSpore Lite).
SINGLE_OPERATORS = "single operators"
GRAPH_ENGINE = "graph engine"


class Sampling(NamedTuple):
    """What the rules look at of a sampling operator in float32, of images [N, C, H, W]."""

    operator: str
    channels: int
    size: tuple[int, int]  # of an image
    offset_groups: int = 1
    kernel_size: tuple[int, int] = (1, 1)
    static: bool = True  # whether the batch is known when the operator is compiled
    engine: str = SINGLE_OPERATORS


@dataclass(frozen=True, eq=False)
class Product:
    """A product line. Of its kinds the fewest cores and the smallest buffer."""

    name: str
    socs: tuple[str, ...]  # patterns of the names of its SoCs, MindSpore's and CANN's, lower case
    cores: int
    unified_buffer: int  # bytes
    rules: dict[str, Callable[[Product, Sampling], str | None]]
    functions: tuple[str, ...] = ()  # of aclnn, for a whole convolution


_BYTES = 4  # of float32
_BLOCK = 32 // _BYTES
_TILING_BYTES = 160
# Least cores times channels, "because of perf".
_LEAST_STATIC = 1024
_LEAST_DYNAMIC = 2049
_MOST_GRADIENT_CHANNELS = 2048
_SLIDE_WINDOW_CHANNELS = 32
_FULL_LOAD_ELEMENTS = 20480


def _blocks(sampling: Sampling) -> str | None:
    if sampling.channels // sampling.offset_groups % _BLOCK:
        return (
            f"takes channels of an offset group in blocks of {_BLOCK}, got "
            f"{sampling.channels // sampling.offset_groups}"
        )
    return None


def _packed_channels(sampling: Sampling) -> int:
    """Those of an offset tensor (x, y, mask), in whole blocks."""
    channels = 3 * sampling.offset_groups * math.prod(sampling.kernel_size)
    return -(-channels // _BLOCK) * _BLOCK


def _segment(product: Product, fixed: int, step: int) -> str | None:
    """Whether a segment of one output fits into the unified buffer; sizes in elements."""
    elements = (product.unified_buffer - _TILING_BYTES) // _BYTES
    if (elements - fixed) // step >= 1:
        return None
    return f"takes what fits into {elements} elements of unified buffer, got {fixed + step}"


def _tbe_forward(product: Product, sampling: Sampling) -> str | None:
    """Source 1."""
    if sampling.offset_groups != 1:
        return f"takes one offset group, got {sampling.offset_groups}"
    least = -(-(_LEAST_STATIC if sampling.static else _LEAST_DYNAMIC) // product.cores)
    if sampling.channels < least:
        batch = "" if sampling.static else " where the batch is unknown"
        return f"takes {least} channels or more{batch}, got {sampling.channels}"
    channels, kernel_width = sampling.channels, sampling.kernel_size[1]
    step = kernel_width * channels + _packed_channels(sampling)
    return _blocks(sampling) or _segment(product, 4 * channels, step)


def _tbe_gradient(product: Product, sampling: Sampling) -> str | None:
    """Source 1."""
    group = sampling.channels // sampling.offset_groups
    step = 2 * _packed_channels(sampling)
    return _blocks(sampling) or _segment(product, (9 + 3) * group, step)


def _aclnn_forward(product: Product, sampling: Sampling) -> str | None:
    """Source 4. The graph engine's own operator needs an instruction that no file names."""
    if sampling.engine != SINGLE_OPERATORS:
        return "is on the AI Core in PyNative mode and jit levels O0 and O1"
    return None


def _aclnn_gradient(product: Product, sampling: Sampling) -> str | None:
    """Source 4."""
    if sampling.channels > _MOST_GRADIENT_CHANNELS:
        return f"takes at most {_MOST_GRADIENT_CHANNELS} channels, got {sampling.channels}"
    return _aclnn_forward(product, sampling)


def _aclnn_forward_310p(product: Product, sampling: Sampling) -> str | None:
    """Source 4."""
    elements = sampling.channels * math.prod(sampling.size)
    if sampling.channels != _SLIDE_WINDOW_CHANNELS and elements >= _FULL_LOAD_ELEMENTS:
        return (
            f"takes {_SLIDE_WINDOW_CHANNELS} channels, or fewer than {_FULL_LOAD_ELEMENTS} "
            f"elements of an image, got {sampling.channels} channels and {elements} elements"
        )
    return _aclnn_forward(product, sampling)


def _any(product: Product, sampling: Sampling) -> None:
    """Sources 4 and 5: SIMT kernels without such limits."""


_TBE = {DEFORMABLE_OFFSETS: _tbe_forward, DEFORMABLE_OFFSETS_GRAD: _tbe_gradient}
_ACLNN = {GRID_SAMPLER: _aclnn_forward, GRID_SAMPLER_GRAD: _aclnn_gradient}
_SIMT = dict.fromkeys(
    (DEFORMABLE_OFFSETS, DEFORMABLE_OFFSETS_GRAD, GRID_SAMPLER, GRID_SAMPLER_GRAD), _any
)

# Operators: sources 2, 4 and 5; functions: source 6. Numbers: source 3.
PRODUCTS = (
    Product("Atlas A2", ("ascend910b*",), 20, 196608, {**_TBE, **_ACLNN}, (CONVOLUTION,)),
    Product("Atlas A3", ("ascend910_93*",), 20, 196608, {**_TBE, **_ACLNN}, (CONVOLUTION,)),
    Product("Ascend 950", ("ascend950*",), 32, 253952, _SIMT, (CONVOLUTION, CONVOLUTION_GRAD)),
    Product(
        "Atlas training series (910)", ("ascend910", "ascend910a", "ascend910pr*"), 30, 262144, _TBE
    ),
    Product(
        "Atlas inference series (310P)",
        ("ascend310p*",),
        8,
        262144,
        {DEFORMABLE_OFFSETS: _tbe_forward, GRID_SAMPLER: _aclnn_forward_310p},
    ),
    Product("Atlas 200I/500 A2 (310B)", ("ascend310b*",), 1, 253952, {}),
)


# Asked for by every call on Ascend.
@cache
def product_of(soc: str) -> Product | None:
    """The product of a SoC: "Ascend910B4", as CANN names one, or "ascend910b", as MindSpore does.

    CANN also calls a 910 of 30 cores "Ascend910B"; that name is taken for MindSpore's here. What
    CANN 8 called Ascend910_95 is the 950 before its operators were published.
    """
    name = soc.lower()
    return next((p for p in PRODUCTS if any(fnmatchcase(name, s) for s in p.socs)), None)


def obstacle(product: Product, sampling: Sampling) -> str | None:
    """Why the operator leaves the AI Core; None if it does not."""
    rule = product.rules.get(sampling.operator)
    why_not = "has no AI Core operator" if rule is None else rule(product, sampling)
    return why_not and f"{sampling.operator} on {product.name} {why_not}"
