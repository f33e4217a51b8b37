# SPDX-License-Identifier: Apache-2.0
"""mmcv's layers with an offset convolution of their own."""

from __future__ import annotations

from mindspore import Tensor
from mindspore.common.initializer import HeUniform, initializer

from ms_deform.keywords import answers_foreign_keywords
from ms_deform.port.grouped import GroupedDeformConv2d, offset_and_mask


class DeformConv2dPack(GroupedDeformConv2d):
    r"""
    Deformable convolution v1 that predicts its own offsets, with the arguments, parameters and
    results of ``mmcv.ops.DeformConv2dPack`` (``DCN`` in configurations).

    An ordinary convolution `conv_offset` with the same kernel, stride, padding and dilation gives
    the offsets, y before x for each tap. It starts at zero, so that the layer starts as an ordinary
    convolution. See :func:`ms_deform.deform_conv2d` for the formula.

    Args:
        in_channels (int): The number of input channels :math:`C_{in}`.
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
        deform_groups (int, optional): Number of groups of channels with offsets of their own;
            divides `in_channels`. Default: ``1`` .
        bias (bool, optional): There for mmcv's signature: this layer has no bias in mmcv, so it
            must be False. Default: ``False`` .
        im2col_step (int, optional): There for mmcv's signature, and without effect: the kernels of
            this project need no such step. Default: ``32`` .
        backend (str, optional): What computes it, see :class:`ms_deform.set_backend`. Default:
            ``None`` , whatever that has chosen.

    Inputs:
        - **x** (Tensor) - Shape :math:`(N, C_{in}, H, W)`.

    Outputs:
        Tensor, of shape :math:`(N, C_{out}, H_{out}, W_{out})` and the dtype of `x`.

    Parameters:
        - **weight** (Parameter) - Shape :math:`(C_{out}, C_{in} / groups, kh, kw)`, initialised
          with HeUniform().
        - **conv_offset.weight** (Parameter) - Shape
          :math:`(2 \cdot deform\_groups \cdot kh \cdot kw, C_{in}, kh, kw)`, zeros at first.
        - **conv_offset.bias** (Parameter) - Zeros at first.

    Raises:
        TypeError: If a keyword is another library's, or `kernel_size`, `stride`, `padding` or
            `dilation` is not made of ints.
        ValueError: If `bias` is True, or a number is out of range or does not divide the channels.

    Supported Platforms:
        ``CPU`` ``GPU`` ``Ascend``

    Examples:
        >>> import mindspore
        >>> from mindspore import ops
        >>> from ms_deform import DeformConv2dPack
        >>> layer = DeformConv2dPack(16, 32, 3, padding=1, deform_groups=4)
        >>> print(layer(ops.ones((2, 16, 24, 24), mindspore.float32)).shape)
        (2, 32, 24, 24)
        >>> print([name for name, _ in layer.parameters_and_names()])
        ['weight', 'conv_offset.weight', 'conv_offset.bias']
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
        bias: bool = False,
        im2col_step: int = 32,
        backend: str | None = None,
    ) -> None:
        if bias:
            raise ValueError(
                "DeformConv2dPack: 'bias' must be False, as in mmcv, got True; use "
                "ModulatedDeformConv2dPack or ms_deform.DeformConv2d for a bias"
            )
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            deform_groups,
            False,
            backend,
        )
        self.conv_offset = self.offset_convolution(2)
        self.weight.set_data(initializer(HeUniform(), self.weight.shape))

    def construct(self, x: Tensor) -> Tensor:
        return self.deform_conv(x, self.conv_offset(x), None, self.weight, None)


class ModulatedDeformConv2dPack(GroupedDeformConv2d):
    r"""
    Deformable convolution v2 that predicts its own offsets and masks, with the arguments,
    parameters and results of ``mmcv.ops.ModulatedDeformConv2dPack`` (``DCNv2`` in configurations).

    An ordinary convolution `conv_offset` with the same kernel, stride, padding and dilation gives
    the offsets, y before x for each tap, and after them the masks, which go through a sigmoid. It
    starts at zero: all offsets 0, all masks 0.5. See :func:`ms_deform.deform_conv2d` for the
    formula.

    Args:
        in_channels (int): The number of input channels :math:`C_{in}`.
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
        deform_groups (int, optional): Number of groups of channels with offsets of their own;
            divides `in_channels`. Default: ``1`` .
        bias (bool, optional): Whether to add a learned bias. Default: ``True`` .
        backend (str, optional): What computes it, see :class:`ms_deform.set_backend`. Default:
            ``None`` , whatever that has chosen.

    Inputs:
        - **x** (Tensor) - Shape :math:`(N, C_{in}, H, W)`.

    Outputs:
        Tensor, of shape :math:`(N, C_{out}, H_{out}, W_{out})` and the dtype of `x`.

    Parameters:
        - **weight** (Parameter) - Shape :math:`(C_{out}, C_{in} / groups, kh, kw)`, initialised
          uniformly in :math:`\pm 1 / \sqrt{C_{in} \cdot kh \cdot kw}`.
        - **bias** (Parameter) - Shape :math:`(C_{out},)`, zeros at first; None if `bias` is False.
        - **conv_offset.weight** (Parameter) - Shape
          :math:`(3 \cdot deform\_groups \cdot kh \cdot kw, C_{in}, kh, kw)`, zeros at first.
        - **conv_offset.bias** (Parameter) - Zeros at first.

    Raises:
        TypeError: If a keyword is another library's, or `kernel_size`, `stride`, `padding` or
            `dilation` is not made of ints.
        ValueError: If a number is out of range or does not divide the channels.

    Supported Platforms:
        ``CPU`` ``GPU`` ``Ascend``

    Examples:
        >>> import mindspore
        >>> from mindspore import ops
        >>> from ms_deform import ModulatedDeformConv2dPack
        >>> layer = ModulatedDeformConv2dPack(16, 32, 3, stride=2, padding=1)
        >>> print(layer(ops.ones((2, 16, 24, 24), mindspore.float32)).shape)
        (2, 32, 12, 12)
        >>> print([name for name, _ in layer.parameters_and_names()])
        ['weight', 'bias', 'conv_offset.weight', 'conv_offset.bias']
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
            deform_groups,
            bias,
            backend,
        )
        self.conv_offset = self.offset_convolution(3)

    def construct(self, x: Tensor) -> Tensor:
        offset, mask = offset_and_mask(self.conv_offset(x))
        return self.deform_conv(x, offset, mask, self.weight, self.bias)
