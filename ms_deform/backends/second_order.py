# SPDX-License-Identifier: Apache-2.0
"""Gradients of the operator's gradients, by the operator itself.

A gradient operator's bprop gets a cotangent for each gradient, and returns the gradients of the sum
of the gradients times their cotangents. They in turn are the gradients of
sum(grad_output * F(input, offset, mask, weight)), F the operator without bias, so that this sum is

    sum(grad_output * D),    D the derivative of F along the cotangents.

D is made of F's, since F is linear in input, mask and weight, and a sample S is linear from one
whole coordinate to the next:

    dS/dy (y, x) = S(floor(y) + 1, x) - S(floor(y), x),    dS/dx likewise.

On pixels and on the border that is the derivative from the right, as it is everywhere here. So the
gradients of D are made of F's gradients, which MindSpore differentiates by this module again.
"""

from __future__ import annotations

from collections.abc import Callable

from mindspore import Tensor, ops
from mindspore import dtype as mstype

# (input, offset, mask, weight, grad_output) -> the gradients of sum(grad_output * F) for each.
Pullback = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, ...]]
Bprop = Callable[..., tuple[Tensor, ...]]


def bprop_of_input(pullback: Pullback, use_mask: bool) -> Bprop:
    """Of the operator for the gradients of input, offset and mask.

    pullback: takes masks, whether or not the operator does.
    """

    def bprop(
        input: Tensor,
        offset: Tensor,
        mask: Tensor,
        weight: Tensor,
        grad_output: Tensor,
        gradients: tuple[Tensor, Tensor, Tensor],
        cotangents: tuple[Tensor, Tensor, Tensor],
    ) -> tuple[Tensor, ...]:
        like = input
        input, offset, given_mask, weight, grad_output = _wide(
            (input, offset, mask, weight, grad_output)
        )
        along_input, along_offset, along_mask = _wide(cotangents)
        (along_y, along_x), (y, x) = _split(along_offset), _split(offset)
        mask = given_mask if use_mask else ops.ones_like(y)

        # Regular positions are whole, so that rounding an offset rounds the coordinate.
        top, left = ops.floor(y), ops.floor(x)
        by_input = pullback(along_input, offset, mask, weight, grad_output)
        by_y = _difference(
            pullback(input, _join(top + 1, x), mask * along_y, weight, grad_output),
            pullback(input, _join(top, x), mask * along_y, weight, grad_output),
        )
        by_x = _difference(
            pullback(input, _join(y, left + 1), mask * along_x, weight, grad_output),
            pullback(input, _join(y, left), mask * along_x, weight, grad_output),
        )

        grad_input = by_y[0] + by_x[0]
        grad_offset = by_input[1] + _join(_split(by_x[1])[0], _split(by_y[1])[1])
        grad_mask = by_input[2] + along_y * by_y[2] + along_x * by_x[2]
        grad_weight = by_input[3] + by_y[3] + by_x[3]
        grad_of_grad_output = by_input[4] + by_y[4] + by_x[4]
        if use_mask:
            by_mask = pullback(input, offset, along_mask, weight, grad_output)
            grad_input = grad_input + by_mask[0]
            grad_offset = grad_offset + by_mask[1]
            grad_weight = grad_weight + by_mask[3]
            grad_of_grad_output = grad_of_grad_output + by_mask[4]
        else:
            grad_mask = ops.zeros_like(given_mask)
        found = (grad_input, grad_offset, grad_mask, grad_weight, grad_of_grad_output)
        return _narrow(found, like)

    return bprop


def bprop_of_weight(pullback: Pullback, use_mask: bool) -> Bprop:
    """Of the operator for the gradient of weight."""

    def bprop(
        input: Tensor,
        offset: Tensor,
        mask: Tensor,
        weight: Tensor,
        grad_output: Tensor,
        gradient: Tensor,
        cotangent: Tensor,
    ) -> tuple[Tensor, ...]:
        like = input
        input, offset, given_mask, along, grad_output = _wide(
            (input, offset, mask, cotangent, grad_output)
        )
        mask = given_mask if use_mask else ops.ones_like(_split(offset)[0])
        found = pullback(input, offset, mask, along, grad_output)
        grad_mask = found[2] if use_mask else ops.zeros_like(given_mask)
        return _narrow((found[0], found[1], grad_mask, ops.zeros_like(along), found[4]), like)

    return bprop


def bprop_of_bias(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    grad_output: Tensor,
    gradient: Tensor,
    cotangent: Tensor,
) -> tuple[Tensor, ...]:
    """Of the operator for the gradient of bias."""
    zeros = [ops.zeros_like(each) for each in _wide((input, offset, mask, weight, grad_output))]
    (along,) = _wide((cotangent,))
    return _narrow((*zeros[:4], zeros[4] + ops.reshape(along, (-1, 1, 1))), input)


def refuse() -> None:
    """What the bprop of the other backends' gradient operators does."""
    raise NotImplementedError(
        "deform_conv2d: gradients of its gradients are not implemented on Ascend; take first-order "
        "gradients only, or compute on a CPU or GPU. If this is a first-order one, an exception "
        "had stopped a gradient in PyNative mode before, and MindSpore took this one for a part of "
        "it: call it again, which is now right"
    )


def _difference(left: tuple[Tensor, ...], right: tuple[Tensor, ...]) -> list[Tensor]:
    return [one - other for one, other in zip(left, right)]


def _wide(tensors: tuple[Tensor, ...]) -> list[Tensor]:
    """The halves in float32, as the kernels compute them."""
    dtype = mstype.float64 if tensors[0].dtype == mstype.float64 else mstype.float32
    return [ops.cast(tensor, dtype) for tensor in tensors]


def _narrow(tensors: tuple[Tensor, ...], like: Tensor) -> tuple[Tensor, ...]:
    return tuple([ops.cast(tensor, like.dtype) for tensor in tensors])


def _split(offset: Tensor) -> tuple[Tensor, Tensor]:
    """[N, 2 * samples, Ho, Wo] -> y and x, [N, samples, Ho, Wo]"""
    batch, channels, height, width = offset.shape
    y, x = ops.unstack(ops.reshape(offset, (batch, channels // 2, 2, height, width)), 2)
    return y, x


def _join(y: Tensor, x: Tensor) -> Tensor:
    """What `_split` takes."""
    batch, samples, height, width = y.shape
    return ops.reshape(ops.stack((y, x), 2), (batch, 2 * samples, height, width))
