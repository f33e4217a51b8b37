# SPDX-License-Identifier: Apache-2.0
"""What calls would take on an Ascend device: on this one, or on one that is only named.

By what is installed here and by CANN's written rules (`install/ai_core.py`); nothing is run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from ms_deform.install import ai_core, cann
from ms_deform.install.ai_core import CONVOLUTION, CONVOLUTION_GRAD, Product
from ms_deform.install.aicpu_operators import FORWARD

# The layer's report needs MindSpore, the device's must come out where that is missing or broken.
if TYPE_CHECKING:
    from ms_deform.backends.ai_core_layout import Layout, Target
    from ms_deform.geometry import Geometry


class Layer(NamedTuple):
    """A layer with square kernels, and padding that keeps the size."""

    in_channels: int
    out_channels: int
    kernel_size: int
    groups: int = 1
    offset_groups: int = 1
    size: tuple[int, int] = (128, 128)


def describe_device(soc: str) -> list[str]:
    """The product, and the routes that calls would take there, and why; "" for no device."""
    product = ai_core.product_of(soc)
    if product is not None:
        name = f"{soc}: {product.name}"
    else:
        name = f"{soc}: a product of no known rules" if soc else "no device: name one by --soc"
    package = cann.aicpu_package(FORWARD.name)
    return [
        f"{name}; {cann.version() or 'no CANN (ASCEND_OPP_PATH names no folder)'}",
        "training in graph mode, O0 and O1: "
        + _aclnn(CONVOLUTION_GRAD, cann.aclnn_backward_obstacle(soc)),
        "inference in graph mode, O0 and O1: " + _aclnn(CONVOLUTION, cann.aclnn_obstacle(soc)),
        "PyNative, jit level O2, MindIR: the composition of MindSpore's own operators",
        'set_backend("aicpu"): '
        + (
            f"the kernels in {package}"
            if package
            else "no vendor package is installed: python -m ms_deform build --aicpu, then "
            "python -m ms_deform install-aicpu"
        ),
    ]


def _aclnn(function: str, why_not: str | None) -> str:
    return function if why_not is None else f"composition: {why_not}"


def describe_layer(layer: Layer, product: Product) -> Iterator[str]:
    """Where the composition of a layer is computed on a product, and why.

    Raises:
        ValueError: If there is no such layer.
    """
    from ms_deform.backends.ai_core_layout import Target

    geometry = _geometry(layer)
    targets = {
        "training, PyNative, O0, O1": Target(product),
        "training, O2": Target(product, ai_core.GRAPH_ENGINE),
        "inference, MindIR, O2": Target(product, ai_core.GRAPH_ENGINE, training=False),
    }
    for use, target in targets.items():
        yield f"{use}: {_describe_choice(geometry, target)}"
    yield f"The layouts, for {next(iter(targets))}:"
    yield from _describe_layouts(geometry, Target(product))


def _geometry(layer: Layer) -> Geometry:
    from mindspore import float32

    from ms_deform.geometry import TensorInfo, check_geometry

    kernel, padding = layer.kernel_size, layer.kernel_size // 2
    out_size = tuple(size + 2 * padding - kernel + 1 for size in layer.size)
    shapes = (
        (1, layer.in_channels, *layer.size),
        (1, 2 * layer.offset_groups * kernel**2, *out_size),
        (1, layer.offset_groups * kernel**2, *out_size),
        (layer.out_channels, layer.in_channels // layer.groups, kernel, kernel),
    )
    tensors = [TensorInfo(shape, float32) for shape in shapes]
    return check_geometry(*tensors, None, (1, padding, 1))


def _describe_choice(geometry: Geometry, target: Target) -> str:
    from ms_deform.backends.ai_core_layout import choose

    layout, why_not = choose(geometry, target)
    where = "on the AI Core" if why_not is None else f"NOT on the AI Core: {why_not}"
    return f"{_describe(geometry, layout)}, {where}"


def _describe_layouts(geometry: Geometry, target: Target) -> Iterator[str]:
    from ms_deform.backends.ai_core_layout import choose, layouts, moved_elements, obstacle

    chosen, _ = choose(geometry, target)
    least = moved_elements(geometry, chosen, target)
    for layout in dict.fromkeys(layouts(geometry, target)):
        moved = f"moves {moved_elements(geometry, layout, target) / least:.2f} times as much"
        verdict = "taken" if layout == chosen else obstacle(geometry, layout, target) or moved
        yield f"  {_describe(geometry, layout)}: {verdict}"


def _describe(geometry: Geometry, layout: Layout) -> str:
    own = geometry.in_channels // layout.image_groups
    zeros = f" and {layout.channels - own} of zeros" if layout.channels > own else ""
    whole = layout.image_groups == 1
    of = "all channels at once" if whole else f"each of {layout.image_groups} offset groups"
    return f"{layout.operator} of {of}, {own} channels{zeros}"
