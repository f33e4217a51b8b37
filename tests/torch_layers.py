# SPDX-License-Identifier: Apache-2.0
"""Layers of mmcv, BasicSR and MMagic in torch, as their sources define them.

They call torchvision's operator. mmcv itself has no wheel for the versions of torch the tests use,
and BasicSR needs an older torchvision.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn
from torchvision.ops import deform_conv2d

import ported_layers


class _Pack(nn.Module):
    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
        deform_groups=1,
        bias=True,
        channels_per_sample=3,
    ) -> None:
        super().__init__()
        pair = nn.modules.utils._pair
        kernel_size = pair(kernel_size)
        self.geometry = {
            "stride": pair(stride),
            "padding": pair(padding),
            "dilation": pair(dilation),
        }
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        bound = 1 / math.sqrt(in_channels * math.prod(kernel_size))
        nn.init.uniform_(self.weight, -bound, bound)
        self.conv_offset = nn.Conv2d(
            in_channels,
            deform_groups * channels_per_sample * math.prod(kernel_size),
            kernel_size,
            **self.geometry,
        )
        nn.init.zeros_(self.conv_offset.weight)
        nn.init.zeros_(self.conv_offset.bias)


class DeformConv2dPack(_Pack):
    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs, bias=False, channels_per_sample=2)
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")

    def forward(self, x):
        return deform_conv2d(x, self.conv_offset(x), self.weight, **self.geometry)


class ModulatedDeformConv2dPack(_Pack):
    def forward(self, x):
        o1, o2, mask = torch.chunk(self.conv_offset(x), 3, dim=1)
        offset = torch.cat((o1, o2), dim=1)
        return deform_conv2d(
            x, offset, self.weight, self.bias, mask=torch.sigmoid(mask), **self.geometry
        )


class DCNv2Pack(ModulatedDeformConv2dPack):
    def __init__(self, *args, deformable_groups=1, **kwargs) -> None:
        super().__init__(*args, deform_groups=deformable_groups, **kwargs)

    def forward(self, x, feat):
        o1, o2, mask = torch.chunk(self.conv_offset(feat), 3, dim=1)
        offset = torch.cat((o1, o2), dim=1)
        return deform_conv2d(
            x, offset, self.weight, self.bias, mask=torch.sigmoid(mask), **self.geometry
        )


class SecondOrderDeformableAlignment(_Pack):
    def __init__(self, *args, max_residue_magnitude=10, deformable_groups=None, **kwargs) -> None:
        if deformable_groups is not None:
            kwargs["deform_groups"] = deformable_groups
        super().__init__(*args, **kwargs)
        self.max_residue_magnitude = max_residue_magnitude
        channels = self.weight.shape[0]
        self.conv_offset = nn.Sequential(
            nn.Conv2d(3 * channels + 4, channels, 3, 1, 1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(channels, channels, 3, 1, 1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(channels, channels, 3, 1, 1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(channels, 27 * kwargs["deform_groups"], 3, 1, 1),
        )
        nn.init.zeros_(self.conv_offset[-1].weight)
        nn.init.zeros_(self.conv_offset[-1].bias)

    def forward(self, x, extra_feat, flow_1, flow_2):
        predicted = self.conv_offset(torch.cat((extra_feat, flow_1, flow_2), dim=1))
        residue, mask = torch.split(
            predicted, [predicted.shape[1] // 3 * 2, predicted.shape[1] // 3], 1
        )
        halves = torch.chunk(self.max_residue_magnitude * torch.tanh(residue), 2, dim=1)
        offsets = [
            half + flow.flip(1).repeat(1, half.shape[1] // 2, 1, 1)
            for half, flow in zip(halves, (flow_1, flow_2))
        ]
        return deform_conv2d(
            x,
            torch.cat(offsets, dim=1),
            self.weight,
            self.bias,
            mask=torch.sigmoid(mask),
            **self.geometry,
        )


def answers(case: ported_layers.Case, seed: int) -> dict[str, np.ndarray]:
    """Random parameters and inputs of a layer, its output and all gradients, in float64."""
    layer = globals()[case.layer](**case.arguments).double()
    shapes = {name: tuple(value.shape) for name, value in layer.named_parameters()}
    parameters = ported_layers.random_parameters(shapes, seed)
    layer.load_state_dict({name: torch.from_numpy(value) for name, value in parameters.items()})
    call = ported_layers.random_call(case, seed)
    inputs = [
        torch.from_numpy(call[f"input/{i}"]).double().requires_grad_()
        for i in range(len(case.inputs))
    ]
    output = layer(*inputs)
    output.backward(torch.from_numpy(call["grad_output"]).double())
    return {
        **{f"parameter/{name}": value for name, value in parameters.items()},
        **call,
        "output": output.detach().numpy(),
        **{f"grad/parameter/{name}": p.grad.numpy() for name, p in layer.named_parameters()},
        **{f"grad/input/{i}": x.grad.numpy() for i, x in enumerate(inputs)},
    }
