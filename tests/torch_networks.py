# SPDX-License-Identifier: Apache-2.0
"""Three architectures that use the operator, in PyTorch, at the size of a test."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from torchvision.ops import DeformConv2d

from torch_layers import ModulatedDeformConv2dPack


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, bias: bool = True):
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=bias)


def leave_initial_values(net: nn.Module) -> None:
    """Batch statistics, and offsets, that are not those of a fresh network."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, tensor in net.state_dict().items():
            if "conv_offset" in key and tensor.abs().max() == 0:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) / 30)
            elif "running" in key:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)


class Bottleneck(nn.Module):
    def __init__(
        self,
        inputs: int,
        width: int,
        stride: int,
        deformable: bool,
        expansion: int = 2,
        project: bool = True,
    ) -> None:
        super().__init__()
        outputs = expansion * width
        self.conv1 = conv(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = (
            ModulatedDeformConv2dPack(width, width, 3, stride, 1, deform_groups=2, bias=False)
            if deformable
            else conv(width, width, 3, stride, bias=False)
        )
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = (
            nn.Sequential(conv(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            if project
            else nn.Identity()
        )

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        return torch.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class DeformableResNet(nn.Module):
    """ResNet whose last two stages have modulated deformable convolutions, as for detection."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 8, 3, 2, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.layer1 = nn.Sequential(Bottleneck(8, 8, 1, False))
        self.layer2 = nn.Sequential(Bottleneck(16, 8, 2, True), Bottleneck(16, 8, 1, True))
        self.layer3 = nn.Sequential(Bottleneck(16, 16, 2, True))
        self.fc = nn.Linear(32, 10)

    def forward(self, x):
        x = torch.relu(self.bn(self.stem(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))


class SecondOrderAlignment(nn.Module):
    """Aligns the features of two frames by two optical flows, as BasicVSR++ does."""

    def __init__(self, channels: int = 16, offset_groups: int = 16) -> None:
        super().__init__()
        self.offset_groups = offset_groups
        self.conv_offset = nn.Sequential(
            conv(3 * channels + 4, channels),
            nn.LeakyReLU(0.1),
            conv(channels, channels),
            nn.LeakyReLU(0.1),
            conv(channels, 27 * offset_groups),
        )
        self.deform = DeformConv2d(2 * channels, channels, 3, padding=1)
        self.reconstruction = conv(channels, 3)

    def forward(self, x, flows):
        """x: two frames' features and the present ones, side by side; flows: (x, y) of each."""
        predicted = self.conv_offset(torch.cat((x, flows), 1))
        o1, o2, mask = torch.chunk(predicted, 3, 1)
        offset1, offset2 = torch.chunk(10 * torch.tanh(torch.cat((o1, o2), 1)), 2, 1)
        repeat = (1, offset1.shape[1] // 2, 1, 1)
        offset1 = offset1 + flows[:, :2].flip(1).repeat(repeat)
        offset2 = offset2 + flows[:, 2:].flip(1).repeat(repeat)
        frames = x[:, : self.deform.weight.shape[1]]
        aligned = self.deform(frames, torch.cat((offset1, offset2), 1), torch.sigmoid(mask))
        return self.reconstruction(functional.leaky_relu(aligned, 0.1))


class TextDetector(nn.Module):
    """A deformable backbone, a feature pyramid and differentiable binarization, as DBNet has."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = conv(3, 8, 3, 2)
        self.conv2 = ModulatedDeformConv2dPack(8, 16, 3, 2, 1)
        self.conv3 = ModulatedDeformConv2dPack(16, 16, 3, 2, 1)
        self.in2 = conv(16, 8, 1)
        self.in3 = conv(16, 8, 1)
        self.out2 = conv(8, 4)
        self.out3 = conv(8, 4)
        self.probability = self.head()
        self.threshold = self.head()

    def head(self):
        return nn.Sequential(
            conv(8, 8, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 8, 2, 2),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 1, 2, 2),
        )

    def forward(self, x):
        c2 = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        c3 = torch.relu(self.conv3(c2))
        p3 = self.in3(c3)
        p2 = self.in2(c2) + functional.interpolate(p3, scale_factor=2, mode="nearest")
        p3 = functional.interpolate(self.out3(p3), scale_factor=2, mode="nearest")
        features = torch.cat((self.out2(p2), p3), 1)
        probability = torch.sigmoid(self.probability(features))
        threshold = torch.sigmoid(self.threshold(features))
        return torch.sigmoid(50 * (probability - threshold))


NETWORKS = {
    "resnet": DeformableResNet,
    "alignment": SecondOrderAlignment,
    "text detection": TextDetector,
}
