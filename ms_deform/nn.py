# SPDX-License-Identifier: Apache-2.0
"""The layer."""

from __future__ import annotations

import inspect
import math
import weakref

from mindspore import Parameter, Tensor, nn
from mindspore.common.initializer import HeUniform, Uniform, initializer

from ms_deform.backends import check_name
from ms_deform.geometry import constant_int, constant_ints, errors_of
from ms_deform.hints import is_foreign_array, must_be_tensor, name_layer
from ms_deform.keywords import answers_foreign_keywords
from ms_deform.ops import convolve


class _Itself:
    """A weak reference to the layer, from which an error can tell its name in the network.

    Not a property, which graph mode would compile. What a layer is called is settled only when all
    of the network is made, and to ask its Parameter takes longer than a good call has to spare.
    """

    def __get__(self, layer: nn.Cell | None, owner: type) -> weakref.ref[nn.Cell] | _Itself:
        return self if layer is None else weakref.ref(layer)


class DeformConv2d(nn.Cell):
    r"""
    Deformable convolution v2, or v1 without a mask, with the arguments, parameters and results of
    ``torchvision.ops.DeformConv2d``.

    It holds the kernel only: offsets and mask are inputs, usually the outputs of an ordinary
    convolution that starts at zero. See :func:`ms_deform.deform_conv2d` for the formula.

    A layer that makes offsets and masks itself derives from this one, and calls
    ``self.deform_conv(input, offset, mask, self.weight, self.bias)`` in its ``construct``, with
    None for no mask: the second example. Exports and :class:`ms_deform.record_offsets` know such
    layers too.

    See `Deformable Convolutional Networks <https://arxiv.org/abs/1703.06211>`_ and `Deformable
    ConvNets v2: More Deformable, Better Results <https://arxiv.org/abs/1811.11168>`_.

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
        groups (int, optional): Number of groups of channels that are convolved apart; divides
            `in_channels` and `out_channels`. Default: ``1`` .
        bias (bool, optional): Whether to add a learned bias. Default: ``True`` .
        backend (str, optional): What computes it, see :class:`ms_deform.set_backend`. Default:
            ``None`` , whatever that has chosen.

    Inputs:
        - **input** (Tensor) - Shape :math:`(N, C_{in}, H, W)`.
        - **offset** (Tensor) - Offsets in input pixels, of shape
          :math:`(N, 2 \cdot offset\_groups \cdot kh \cdot kw, H_{out}, W_{out})`, y before x for
          each tap.
        - **mask** (Tensor, optional) - A factor for each sample, of shape
          :math:`(N, offset\_groups \cdot kh \cdot kw, H_{out}, W_{out})`. Default: ``None`` .

        All have the dtype of the parameters: float32, or float16, bfloat16 or float64 after
        ``to_float`` or a cast of the parameters.

    Outputs:
        Tensor, of shape :math:`(N, C_{out}, H_{out}, W_{out})` and the dtype of the inputs.

    Parameters:
        - **weight** (Parameter) - Shape :math:`(C_{out}, C_{in} / groups, kh, kw)`, initialised
          with HeUniform(sqrt(5)).
        - **bias** (Parameter) - Shape :math:`(C_{out},)`, initialised uniformly in
          :math:`\pm 1 / \sqrt{C_{in} / groups \cdot kh \cdot kw}`; None if `bias` is False.

    Raises:
        TypeError: If a keyword is another library's, `in_channels`, `out_channels` or `groups` is
            not an int, or `kernel_size`, `stride`, `padding` or `dilation` is not made of ints.
        ValueError: If `in_channels`, `out_channels`, `kernel_size`, `stride`, `dilation` or
            `groups` is less than 1, `padding` is negative, or `groups` does not divide
            `in_channels` and `out_channels`.
        ValueError: If there is no backend of the name `backend`.

    Supported Platforms:
        ``CPU`` ``GPU`` ``Ascend``

    Examples:
        >>> import mindspore
        >>> import numpy as np
        >>> from mindspore import Tensor
        >>> from ms_deform import DeformConv2d
        >>> layer = DeformConv2d(3, 8, kernel_size=3, padding=1)
        >>> input = Tensor(np.ones((2, 3, 10, 12)), dtype=mindspore.float32)
        >>> offset = Tensor(np.zeros((2, 18, 10, 12)), dtype=mindspore.float32)
        >>> mask = Tensor(np.ones((2, 9, 10, 12)), dtype=mindspore.float32)
        >>> print(layer(input, offset, mask).shape)
        (2, 8, 10, 12)
        >>> from mindspore import nn, ops
        >>> class GuidedDeformConv2d(DeformConv2d):
        ...     def __init__(self, channels):
        ...         super().__init__(channels, channels, 3, padding=1)
        ...         self.conv_offset = nn.Conv2d(channels, 27, 3, pad_mode="pad", padding=1)
        ...
        ...     def construct(self, input, guide):
        ...         predicted = self.conv_offset(guide)
        ...         offset, mask = predicted[:, :18], ops.sigmoid(predicted[:, 18:])
        ...         return self.deform_conv(input, offset, mask, self.weight, self.bias)
        >>> print(GuidedDeformConv2d(3)(input, 0.5 * input).shape)
        (2, 3, 10, 12)
    """

    itself = _Itself()

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
        bias: bool = True,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        self.caller = type(self).__name__
        check_name(f"{self.caller}: 'backend'", backend)
        with errors_of(self.caller):
            self.groups = constant_int("groups", groups, 1)
            self.in_channels = self._channels("in_channels", in_channels)
            self.out_channels = self._channels("out_channels", out_channels)
            self.kernel_size = constant_ints("kernel_size", kernel_size, 1, (2,))
            self.stride = constant_ints("stride", stride, 1, (2,))
            self.padding = constant_ints("padding", padding, 0, (2, 4))
            self.dilation = constant_ints("dilation", dilation, 1, (2,))
        self.backend = backend
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        self.weight = Parameter(initializer(HeUniform(math.sqrt(5)), shape), name="weight")
        self.bias = None
        if bias:
            bound = 1 / math.sqrt(math.prod(shape[1:]))
            self.bias = Parameter(initializer(Uniform(bound), (out_channels,)), name="bias")

    def _channels(self, name: str, value: object) -> int:
        channels = constant_int(name, value, 1)
        if channels % self.groups != 0:
            raise ValueError(f"'{name}' must be divisible by groups = {self.groups}, got {value}")
        return channels

    def __call__(self, *args: object, **kwargs: object) -> Tensor:
        try:
            return super().__call__(*args, **kwargs)
        except TypeError as error:
            self._explain(error, args, kwargs)
            raise

    def _explain(
        self, error: TypeError, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        """Raises a plainer error where an argument is another library's array."""
        if str(error).startswith(self.caller):
            return
        given = inspect.signature(self.construct).bind_partial(*args, **kwargs).arguments
        for name, value in given.items():
            if is_foreign_array(value):
                plain = TypeError(f"{self.caller}: {must_be_tensor(repr(name), value, name)}")
                name_layer(plain, self.caller, self.itself)
                raise plain from error

    def construct(self, input: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.deform_conv(input, offset, mask, self.weight, self.bias)

    # Weight and bias are arguments: in graph mode MindSpore's mixed precision casts what construct
    # itself passes on.
    def deform_conv(
        self,
        input: Tensor,
        offset: Tensor,
        mask: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        """What `construct` does, for layers that make offset and mask themselves.

        The arguments are those of :func:`ms_deform.deform_conv2d`; stride, padding, dilation and
        backend are the layer's.
        """
        return convolve(
            input,
            offset,
            mask,
            weight,
            bias,
            self.stride,
            self.padding,
            self.dilation,
            self.caller,
            self.backend,
            self.training,
            self.itself,
        )

    def extend_repr(self) -> str:
        """What MindSpore prints of the layer: torchvision's repr, without unit defaults."""
        parts = [
            f"{self.in_channels}, {self.out_channels}",
            f"kernel_size={self.kernel_size}",
            f"stride={self.stride}",
        ]
        if any(self.padding):
            parts.append(f"padding={self.padding}")
        if self.dilation != (1, 1):
            parts.append(f"dilation={self.dilation}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        if self.backend is not None:
            parts.append(f"backend={self.backend}")
        return ", ".join(parts)
