# SPDX-License-Identifier: Apache-2.0
"""Layers that align the frames of a video: of BasicSR, EDVR and BasicVSR++."""

from __future__ import annotations

import math

from mindspore import Tensor, nn, ops

from ms_deform.geometry import errors_of
from ms_deform.keywords import answers_foreign_keywords
from ms_deform.port.grouped import GroupedDeformConv2d, offset_and_mask
from ms_deform.port.mmcv import ModulatedDeformConv2dPack


class DCNv2Pack(ModulatedDeformConv2dPack):
    r"""
    Deformable convolution v2 whose offsets and masks are predicted from other features than its
    input, with the arguments, parameters and results of BasicSR's ``DCNv2Pack`` (EDVR and its
    kin): `BasicSR <https://github.com/XPixelGroup/BasicSR>`_ 1.4.2, basicsr/archs/arch_util.py and
    basicsr/ops/dcn/deform_conv.py.

    An ordinary convolution `conv_offset` of `feat` with the same kernel, stride, padding and
    dilation gives the offsets, y before x for each tap, and after them the masks, which go through
    a sigmoid. It starts at zero: all offsets 0, all masks 0.5. See
    :func:`ms_deform.deform_conv2d` for the formula.

    See `EDVR: Video Restoration with Enhanced Deformable Convolutional Networks
    <https://arxiv.org/abs/1905.02716>`_ and `Understanding Deformable Alignment in Video
    Super-Resolution <https://arxiv.org/abs/2009.07265>`_.

    Note:
        BasicSR logs a warning where the mean absolute offset exceeds 50, a sign of a training that
        diverges. It reads a number from the device at each call, which a compiled graph cannot do;
        :class:`ms_deform.record_offsets` shows the offsets of any call instead.

    Args:
        in_channels (int): The number of channels :math:`C_{in}` of `x` and of `feat`.
        out_channels (int): The number of output channels :math:`C_{out}`.
        kernel_size (Union[int, tuple[int]]): Height and width of the kernel.
        stride (Union[int, tuple[int]], optional): Step of the kernel along height and width.
            Default: ``1`` .
        padding (Union[int, tuple[int]], optional): Zeros around the input: along height and width,
            or (top, bottom, left, right). Default: ``0`` .
        dilation (Union[int, tuple[int]], optional): Distance of the taps along height and width.
            Default: ``1`` .
        groups (int, optional): Number of groups of channels that are convolved apart.
            Default: ``1`` .
        deformable_groups (int, optional): Number of groups of channels with offsets of their own;
            divides `in_channels`. Default: ``1`` .
        bias (bool, optional): Whether to add a learned bias. Default: ``True`` .
        backend (str, optional): What computes it, see :class:`ms_deform.set_backend`. Default:
            ``None`` , whatever that has chosen.

    Inputs:
        - **x** (Tensor) - What is sampled, of shape :math:`(N, C_{in}, H, W)`.
        - **feat** (Tensor) - What offsets and masks are predicted from, of the same shape.

    Outputs:
        Tensor, of shape :math:`(N, C_{out}, H_{out}, W_{out})` and the dtype of `x`.

    Parameters:
        - **weight** (Parameter) - Shape :math:`(C_{out}, C_{in} / groups, kh, kw)`, initialised
          uniformly in :math:`\pm 1 / \sqrt{C_{in} \cdot kh \cdot kw}`.
        - **bias** (Parameter) - Shape :math:`(C_{out},)`, zeros at first; None if `bias` is False.
        - **conv_offset.weight** (Parameter) - Shape
          :math:`(3 \cdot deformable\_groups \cdot kh \cdot kw, C_{in}, kh, kw)`, zeros at first.
        - **conv_offset.bias** (Parameter) - Zeros at first.

    Raises:
        TypeError: If a keyword is another library's, or `kernel_size`, `stride`, `padding` or
            `dilation` is not made of ints.
        ValueError: If a number is out of range or does not divide the channels.

    Supported Platforms:
        ``CPU`` ``GPU`` ``Ascend``

    Examples:
        >>> import mindspore
        >>> import numpy as np
        >>> from mindspore import ops
        >>> from ms_deform import DCNv2Pack, record_offsets
        >>> layer = DCNv2Pack(16, 32, 3, padding=1, deformable_groups=4)
        >>> x = feat = ops.ones((2, 16, 24, 24), mindspore.float32)
        >>> with record_offsets(layer) as records:
        ...     print(layer(x, feat).shape)
        (2, 32, 24, 24)
        >>> print(np.abs(records["DCNv2Pack"][0].offset).mean())
        0.0
    """

    groups_keyword = "deformable_groups"

    @answers_foreign_keywords
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | tuple[int, int, int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        deformable_groups: int = 1,
        bias: bool = True,
        backend: str | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            deformable_groups,
            bias,
            backend,
        )

    def construct(self, x: Tensor, feat: Tensor) -> Tensor:
        offset, mask = offset_and_mask(self.conv_offset(feat))
        return self.deform_conv(x, offset, mask, self.weight, self.bias)


class SecondOrderDeformableAlignment(GroupedDeformConv2d):
    r"""
    Aligns the features of two frames with a third by two optical flows, with the arguments,
    parameters and results of BasicVSR++'s ``SecondOrderDeformableAlignment``: in `MMagic
    <https://github.com/open-mmlab/mmagic>`_ (once mmediting), commit 58380b2,
    mmagic/models/editors/basicvsr_plusplus_net/basicvsr_plusplus_net.py, and in `BasicSR
    <https://github.com/XPixelGroup/BasicSR>`_ 1.4.2, basicsr/archs/basicvsrpp_arch.py.

    Four convolutions `conv_offset` of `extra_feat` and the flows, with leaky ReLUs between them,
    give residues and masks. The first half of the offset groups is offset by the first flow, the
    second half by the second one:

    .. math::
        offset = flow + max\_residue\_magnitude \cdot \tanh(residue)

    They start such that all residues are 0 and all masks 0.5. See
    :func:`ms_deform.deform_conv2d` for the formula of the convolution.

    See `BasicVSR++: Improving Video Super-Resolution with Enhanced Propagation and Alignment
    <https://arxiv.org/abs/2104.13371>`_.

    Args:
        in_channels (int): The number of input channels :math:`C_{in}`, those of both frames.
        out_channels (int): The number of output channels :math:`C_{out}`.
        kernel_size (Union[int, tuple[int]]): Height and width of the kernel, which has 9 taps.
        stride (Union[int, tuple[int]], optional): Step of the kernel along height and width.
            Default: ``1`` .
        padding (Union[int, tuple[int]], optional): Zeros around the input: along height and width,
            or (top, bottom, left, right). Default: ``0`` .
        dilation (Union[int, tuple[int]], optional): Distance of the taps along height and width.
            Default: ``1`` .
        groups (int, optional): Number of groups of channels that are convolved apart.
            Default: ``1`` .
        deform_groups (int, optional): Number of groups of channels with offsets of their own, an
            even one that divides `in_channels`. It must be given, here or as `deformable_groups`.
            Default: ``1`` .
        bias (bool, optional): Whether to add a learned bias. Default: ``True`` .
        max_residue_magnitude (Union[int, float], optional): How far, in pixels, a sample may be
            from where the flow points. Default: ``10`` .
        deformable_groups (int, optional): BasicSR's name of `deform_groups`. Default: ``None`` .
        backend (str, optional): What computes it, see :class:`ms_deform.set_backend`. Default:
            ``None`` , whatever that has chosen.

    Inputs:
        - **x** (Tensor) - The features of two frames side by side, of shape
          :math:`(N, C_{in}, H, W)`.
        - **extra_feat** (Tensor) - What residues and masks are predicted from: the first frame's
          features warped by `flow_1`, the present ones, the second frame's warped by `flow_2`, of
          shape :math:`(N, 3 \cdot C_{out}, H_{out}, W_{out})`.
        - **flow_1** (Tensor) - The flow to the first frame, x before y, of shape
          :math:`(N, 2, H_{out}, W_{out})`.
        - **flow_2** (Tensor) - The flow to the second frame, of the same shape.

    Outputs:
        Tensor, of shape :math:`(N, C_{out}, H_{out}, W_{out})` and the dtype of `x`.

    Parameters:
        - **weight** (Parameter) - Shape :math:`(C_{out}, C_{in} / groups, kh, kw)`, initialised
          uniformly in :math:`\pm 1 / \sqrt{C_{in} \cdot kh \cdot kw}`.
        - **bias** (Parameter) - Shape :math:`(C_{out},)`, zeros at first; None if `bias` is False.
        - **conv_offset.0.weight** (Parameter) - Shape
          :math:`(C_{out}, 3 \cdot C_{out} + 4, 3, 3)`; **conv_offset.2** and **conv_offset.4**
          keep :math:`C_{out}` channels.
        - **conv_offset.6.weight** (Parameter) - Shape
          :math:`(27 \cdot deform\_groups, C_{out}, 3, 3)`, zeros at first, as its bias.

    Raises:
        TypeError: If a keyword is another library's, or `kernel_size`, `stride`, `padding` or
            `dilation` is not made of ints.
        ValueError: If the kernel does not have 9 taps, `deform_groups` is odd or differs from
            `deformable_groups`, or a number is out of range or does not divide the channels.

    Supported Platforms:
        ``CPU`` ``GPU`` ``Ascend``

    Examples:
        >>> import mindspore
        >>> from mindspore import ops
        >>> from ms_deform import SecondOrderDeformableAlignment
        >>> layer = SecondOrderDeformableAlignment(32, 16, 3, padding=1, deform_groups=8)
        >>> x, extra_feat = ops.ones((1, 32, 24, 24)), ops.ones((1, 48, 24, 24))
        >>> flow = ops.zeros((1, 2, 24, 24), mindspore.float32)
        >>> print(layer(x, extra_feat, flow, flow).shape)
        (1, 16, 24, 24)
        >>> print([name for name, _ in layer.parameters_and_names()][:3])
        ['weight', 'bias', 'conv_offset.0.weight']
    """

    @answers_foreign_keywords
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | tuple[int, int, int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        deform_groups: int = 1,
        bias: bool = True,
        max_residue_magnitude: float = 10,
        deformable_groups: int | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            deform_groups if deformable_groups is None else deformable_groups,
            bias,
            backend,
        )
        with errors_of(self.caller):
            if deformable_groups is not None and deform_groups not in (1, deformable_groups):
                raise ValueError(
                    "'deform_groups' and 'deformable_groups' are one number, got "
                    f"{deform_groups} and {deformable_groups}; leave one of them out"
                )
            if math.prod(self.kernel_size) != 9:
                raise ValueError(
                    f"'kernel_size' must have 9 taps, as many as conv_offset predicts, got "
                    f"{kernel_size}"
                )
            if self.deform_groups % 2 != 0:
                raise ValueError(
                    "'deform_groups' must be even, as each flow is for half of them, got "
                    f"{self.deform_groups}"
                )
        self.max_residue_magnitude = max_residue_magnitude
        self.tanh = _Tanh()
        self.conv_offset = nn.SequentialCell(
            _conv3x3(3 * out_channels + 4, out_channels),
            _LeakyReLU(),
            _conv3x3(out_channels, out_channels),
            _LeakyReLU(),
            _conv3x3(out_channels, out_channels),
            _LeakyReLU(),
            _conv3x3(out_channels, 27 * self.deform_groups, weight_init="zeros", bias_init="zeros"),
        )

    def construct(self, x: Tensor, extra_feat: Tensor, flow_1: Tensor, flow_2: Tensor) -> Tensor:
        predicted = self.conv_offset(ops.cat((extra_feat, flow_1, flow_2), 1))
        residue, mask = offset_and_mask(predicted)
        flows = ops.cat((self._offsets_of(flow_1), self._offsets_of(flow_2)), 1)
        offset = flows + self.max_residue_magnitude * self.tanh(residue)
        return self.deform_conv(x, offset, mask, self.weight, self.bias)

    def _offsets_of(self, flow: Tensor) -> Tensor:
        """A flow, x before y, as the offsets of half of the offset groups, each with 9 taps."""
        along_x, along_y = ops.chunk(flow, 2, 1)
        return ops.tile(ops.cat((along_y, along_x), 1), (1, 9 * self.deform_groups // 2, 1, 1))


# Cells, not functions: mixed precision O1 compiles a copy of a layer's class, which may not see the
# functions of its module.
class _Tanh(nn.Cell):
    """The hyperbolic tangent to float32's rounding, by that of half the argument.

    MindSpore's float32 kernel for CPUs sets it to 1 from 5 on, off by 1e-4; the formula leaves of
    an error there its square.
    """

    def construct(self, x: Tensor) -> Tensor:
        half = ops.tanh(0.5 * x)
        return 2 * half / (1 + half * half)


class _LeakyReLU(nn.Cell):
    """PyTorch's, at 0 too; MindSpore's fails under mixed precision O1, looking for `maximum_`."""

    def construct(self, x: Tensor) -> Tensor:
        return ops.select(x > 0, x, 0.1 * x)


def _conv3x3(in_channels: int, out_channels: int, **init: str) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, pad_mode="pad", padding=1, has_bias=True, **init)
