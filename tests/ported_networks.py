# SPDX-License-Identifier: Apache-2.0
"""The networks of torch_networks.py, ported to MindSpore line by line."""

from __future__ import annotations

from mindspore import nn, ops

from ms_deform import DeformConv2d, ModulatedDeformConv2dPack


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, bias: bool = True):
    return nn.Conv2d(
        inputs, outputs, kernel, stride, pad_mode="pad", padding=kernel // 2, has_bias=bias
    )


class Bottleneck(nn.Cell):
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
            nn.SequentialCell(conv(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            if project
            else nn.Identity()
        )

    def construct(self, x):
        y = ops.relu(self.bn1(self.conv1(x)))
        y = ops.relu(self.bn2(self.conv2(y)))
        return ops.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class DeformableResNet(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 8, 3, 2, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.layer1 = nn.SequentialCell(Bottleneck(8, 8, 1, False))
        self.layer2 = nn.SequentialCell(Bottleneck(16, 8, 2, True), Bottleneck(16, 8, 1, True))
        self.layer3 = nn.SequentialCell(Bottleneck(16, 16, 2, True))
        self.fc = nn.Dense(32, 10)

    def construct(self, x):
        x = ops.relu(self.bn(self.stem(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))


class SecondOrderAlignment(nn.Cell):
    def __init__(self, channels: int = 16, offset_groups: int = 16) -> None:
        super().__init__()
        self.offset_groups = offset_groups
        self.conv_offset = nn.SequentialCell(
            conv(3 * channels + 4, channels),
            nn.LeakyReLU(0.1),
            conv(channels, channels),
            nn.LeakyReLU(0.1),
            conv(channels, 27 * offset_groups),
        )
        self.deform = DeformConv2d(2 * channels, channels, 3, padding=1)
        self.reconstruction = conv(channels, 3)

    def construct(self, x, flows):
        predicted = self.conv_offset(ops.cat((x, flows), 1))
        o1, o2, mask = ops.chunk(predicted, 3, 1)
        offset1, offset2 = ops.chunk(10 * ops.tanh(ops.cat((o1, o2), 1)), 2, 1)
        repeat = (1, offset1.shape[1] // 2, 1, 1)
        offset1 = offset1 + ops.tile(ops.flip(flows[:, :2], (1,)), repeat)
        offset2 = offset2 + ops.tile(ops.flip(flows[:, 2:], (1,)), repeat)
        frames = x[:, : self.deform.weight.shape[1]]
        aligned = self.deform(frames, ops.cat((offset1, offset2), 1), ops.sigmoid(mask))
        return self.reconstruction(ops.leaky_relu(aligned, 0.1))


class TextDetector(nn.Cell):
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
        return nn.SequentialCell(
            conv(8, 8, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2dTranspose(8, 8, 2, 2, pad_mode="pad", has_bias=True),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2dTranspose(8, 1, 2, 2, pad_mode="pad", has_bias=True),
        )

    def construct(self, x):
        c2 = ops.relu(self.conv2(ops.relu(self.conv1(x))))
        c3 = ops.relu(self.conv3(c2))
        p3 = self.in3(c3)
        p2 = self.in2(c2) + twice(p3)
        features = ops.cat((self.out2(p2), twice(self.out3(p3))), 1)
        probability = ops.sigmoid(self.probability(features))
        threshold = ops.sigmoid(self.threshold(features))
        return ops.sigmoid(50 * (probability - threshold))


def twice(x):
    """Nearest-neighbour upsampling by two."""
    return ops.repeat_interleave(ops.repeat_interleave(x, 2, 2), 2, 3)


NETWORKS = {
    "resnet": DeformableResNet,
    "alignment": SecondOrderAlignment,
    "text detection": TextDetector,
}
# The shapes that a test calls them with.
INPUTS = {
    "resnet": [(2, 3, 32, 32)],
    "alignment": [(2, 48, 16, 20), (2, 4, 16, 20)],
    "text detection": [(2, 3, 32, 48)],
}
