# SPDX-License-Identifier: Apache-2.0
"""Deformable convolution in plain NumPy float64, written to be read.

    output[n, o, p] = bias[o] + sum over c, k of weight[o, c, k] * mask[n, g, k, p]
                                                 * S(input[n, c], y[n, g, k, p], x[n, g, k, p])

(Zhu et al., "Deformable ConvNets v2", equation 1), where p is an output pixel, k a tap, g the
offset group of channel c, and S interpolates bilinearly between the four corners around a point.

Two letters of layout recur: K = kernel_h * kernel_w taps, D = C_in / offset_groups channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class Gradients(NamedTuple):
    input: np.ndarray  # [N, C_in, H, W]
    offset: np.ndarray  # [N, OG * K * 2, Ho, Wo]
    mask: np.ndarray | None  # [N, OG * K, Ho, Wo], None without a mask
    weight: np.ndarray  # [C_out, C_in / G, kh, kw]
    bias: np.ndarray | None  # [C_out], None without a bias


class Corner(NamedTuple):
    """One of the four pixels around every sampling point, each field [N, OG, K, Ho, Wo]."""

    at: tuple[np.ndarray, ...]  # index (n, g, row, column), the first two broadcast
    in_image: np.ndarray
    counts: np.ndarray  # in the image, and the point itself samples it
    weight: np.ndarray
    slope_y: np.ndarray  # d weight / d y
    slope_x: np.ndarray


def pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)


def output_size(size, kernel, stride, padding, dilation) -> tuple[int, int]:
    """(Ho, Wo) for a padding of one, two or four numbers (top, bottom, left, right)."""
    stride, dilation, padding = pair(stride), pair(dilation), pair(padding)
    if len(padding) == 2:
        padding = (padding[0], padding[0], padding[1], padding[1])
    return tuple(
        (size[d] + padding[2 * d] + padding[2 * d + 1] - dilation[d] * (kernel[d] - 1) - 1)
        // stride[d]
        + 1
        for d in (0, 1)
    )


def sampling_points(offset, kernel, stride, padding, dilation) -> tuple[np.ndarray, np.ndarray]:
    """y = oy * stride - pad_top + i * dilation + offset_y, likewise x: [N, OG, K, Ho, Wo]."""
    n, _, out_h, out_w = offset.shape
    k_h, k_w = kernel
    stride, dilation, padding = pair(stride), pair(dilation), pair(padding)
    pad_top, pad_left = padding[0], padding[len(padding) // 2]
    tap_y = np.repeat(np.arange(k_h), k_w)[:, None, None] * dilation[0]
    tap_x = np.tile(np.arange(k_w), k_h)[:, None, None] * dilation[1]
    out_y = np.arange(out_h)[:, None] * stride[0]
    out_x = np.arange(out_w) * stride[1]
    groups = offset.shape[1] // (2 * k_h * k_w)
    offset = offset.reshape(n, groups, k_h * k_w, 2, out_h, out_w)
    y = out_y - pad_top + tap_y + offset[:, :, :, 0]
    x = out_x - pad_left + tap_x + offset[:, :, :, 1]
    return y, x


def corners(y: np.ndarray, x: np.ndarray, height: int, width: int) -> Iterator[Corner]:
    n = np.arange(y.shape[0])[:, None, None, None, None]
    g = np.arange(y.shape[1])[:, None, None, None]
    samples = (y > -1) & (y < height) & (x > -1) & (x < width)
    # Beyond one ring around the image nothing is sampled; the clip tames 1e30 and infinity.
    y, x = np.clip(y, -2, height + 1), np.clip(x, -2, width + 1)
    for row, weight_y, slope_y in ends(y):
        for column, weight_x, slope_x in ends(x):
            in_image = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            yield Corner(
                at=(
                    n,
                    g,
                    np.where(in_image, row, 0).astype(int),
                    np.where(in_image, column, 0).astype(int),
                ),
                in_image=in_image,
                counts=in_image & samples,
                weight=weight_y * weight_x,
                slope_y=slope_y * weight_x,
                slope_x=weight_y * slope_x,
            )


def ends(t: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """(position, weight, slope) of the two pixels around t.

    floor makes the slope at an integer the one to its right.
    """
    low = np.floor(t)
    yield low, low + 1 - t, -1
    yield low + 1, t - low, 1


def channels_last(image: np.ndarray, offset_groups: int) -> np.ndarray:
    """[N, C_in, H, W] -> [N, OG, H, W, D]"""
    n, c_in, height, width = image.shape
    shape = (n, offset_groups, c_in // offset_groups, height, width)
    return np.moveaxis(image.reshape(shape), 2, -1)


def sample(image: np.ndarray, y: np.ndarray, x: np.ndarray, factor: str = "weight") -> np.ndarray:
    """sum over corners of factor * pixel, at every point [N, OG, K, Ho, Wo, D].

    The factor "weight" gives the value, "slope_y" and "slope_x" its derivatives. A point on
    y == -1 has the value 0, yet its derivative sees row 0, as for any y just above -1.
    """
    pixels = channels_last(image, y.shape[1])
    total = np.zeros((*y.shape, pixels.shape[-1]))
    for corner in corners(y, x, *image.shape[2:]):
        seen = corner.counts if factor == "weight" else corner.in_image
        term = getattr(corner, factor)[..., None] * pixels[corner.at]
        total += np.where(seen[..., None], term, 0)
    total[np.isnan(y) | np.isnan(x)] = np.nan
    return total


def group_columns(columns: np.ndarray, groups: int) -> np.ndarray:
    """[N, OG, K, Ho, Wo, D] -> [N, G, C_in / G, K, Ho, Wo]"""
    n, offset_groups, taps, out_h, out_w, depth = columns.shape
    shape = (n, groups, offset_groups * depth // groups, taps, out_h, out_w)
    return np.moveaxis(columns, -1, 2).reshape(shape)


def group_weight(weight: np.ndarray, groups: int) -> np.ndarray:
    """[C_out, C_in / G, kh, kw] -> [G, C_out / G, C_in / G, K]"""
    c_out, depth, k_h, k_w = weight.shape
    return weight.reshape(groups, c_out // groups, depth, k_h * k_w)


def per_tap(mask: np.ndarray | None, y: np.ndarray) -> np.ndarray:
    """[N, OG * K, Ho, Wo] -> [N, OG, K, Ho, Wo]; no mask is a mask of ones."""
    return np.ones_like(y) if mask is None else mask.reshape(y.shape)


def deform_conv2d(
    input, offset, weight, bias=None, stride=(1, 1), padding=(0, 0), dilation=(1, 1), mask=None
) -> np.ndarray:
    """output [N, C_out, Ho, Wo]"""
    y, x = sampling_points(offset, weight.shape[2:], stride, padding, dilation)
    groups = input.shape[1] // weight.shape[1]
    columns = group_columns(per_tap(mask, y)[..., None] * sample(input, y, x), groups)
    output = np.einsum("ngckyx,gock->ngoyx", columns, group_weight(weight, groups), optimize=True)
    output = output.reshape(len(input), len(weight), *y.shape[-2:])
    return output if bias is None else output + bias[:, None, None]


def deform_conv2d_grad(
    grad_output,
    input,
    offset,
    weight,
    bias=None,
    stride=(1, 1),
    padding=(0, 0),
    dilation=(1, 1),
    mask=None,
) -> Gradients:
    """The gradients of sum(grad_output * deform_conv2d(...))."""
    y, x = sampling_points(offset, weight.shape[2:], stride, padding, dilation)
    groups = input.shape[1] // weight.shape[1]
    value = sample(input, y, x)
    modulation = per_tap(mask, y)[..., None]

    n, offset_groups, taps, out_h, out_w = y.shape
    grad_groups = grad_output.reshape(n, groups, len(weight) // groups, out_h, out_w)
    columns = group_columns(modulation * value, groups)
    grad_weight = np.einsum("ngoyx,ngckyx->gock", grad_groups, columns, optimize=True)

    grad_columns = np.einsum(
        "ngoyx,gock->ngckyx", grad_groups, group_weight(weight, groups), optimize=True
    )
    grad_columns = np.moveaxis(
        grad_columns.reshape(n, offset_groups, value.shape[-1], taps, out_h, out_w), 2, -1
    )  # [N, OG, K, Ho, Wo, D], as value
    grad_value = grad_columns * modulation

    grad_pixels = np.zeros_like(channels_last(input, offset_groups))
    for corner in corners(y, x, *input.shape[2:]):
        at = tuple(np.broadcast_to(index, y.shape)[corner.counts] for index in corner.at)
        np.add.at(grad_pixels, at, (grad_value * corner.weight[..., None])[corner.counts])

    slopes = (sample(input, y, x, "slope_y"), sample(input, y, x, "slope_x"))
    grad_offset = np.stack([(grad_value * slope).sum(-1) for slope in slopes], axis=3)
    grad_mask = (grad_columns * value).sum(-1)
    return Gradients(
        input=np.moveaxis(grad_pixels, -1, 2).reshape(input.shape),
        offset=grad_offset.reshape(offset.shape),
        mask=None if mask is None else grad_mask.reshape(mask.shape),
        weight=grad_weight.reshape(weight.shape),
        bias=None if bias is None else grad_output.sum((0, 2, 3)),
    )
