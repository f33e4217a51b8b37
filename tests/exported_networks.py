# SPDX-License-Identifier: Apache-2.0
"""Whole networks of the papers that use deformable convolutions, small, as users write them."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from ms_deform import (
    DCNv2Pack,
    DeformConv2d,
    SecondOrderDeformableAlignment,
)
from networks import random_array
from ported_networks import Bottleneck, conv


def resize(x, size, align_corners: bool = False):
    return ops.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)


def twice(x):
    return ops.interpolate(
        x, scale_factor=2.0, recompute_scale_factor=True, mode="bilinear", align_corners=False
    )


class ResidualBlock(nn.Cell):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels)
        self.conv2 = conv(channels, channels)
        self.relu = nn.ReLU()

    def construct(self, x):
        return x + self.conv2(self.relu(self.conv1(x)))


class PyramidAlignment(nn.Cell):
    """EDVR's PCD: offsets of three levels, each refined by the level below it."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.offset_conv1 = nn.CellList([conv(2 * channels, channels) for _ in range(3)])
        self.offset_conv2 = nn.CellList(
            [conv((2 if level < 2 else 1) * channels, channels) for level in range(3)]
        )
        self.offset_conv3 = nn.CellList([conv(channels, channels) for _ in range(2)])
        self.dcn_pack = nn.CellList(
            [
                DCNv2Pack(channels, channels, 3, padding=1, deformable_groups=groups)
                for _ in range(3)
            ]
        )
        self.feat_conv = nn.CellList([conv(2 * channels, channels) for _ in range(2)])
        self.cas_offset_conv1 = conv(2 * channels, channels)
        self.cas_dcnpack = DCNv2Pack(channels, channels, 3, padding=1, deformable_groups=groups)
        self.lrelu = nn.LeakyReLU(0.1)

    def construct(self, neighbour, reference):
        below, below_feature, feature = None, None, None
        for level in (2, 1, 0):
            offset = ops.cat((neighbour[level], reference[level]), 1)
            offset = self.lrelu(self.offset_conv1[level](offset))
            if below is not None:
                offset = self.offset_conv2[level](ops.cat((offset, below), 1))
                offset = self.offset_conv3[level](self.lrelu(offset))
            else:
                offset = self.offset_conv2[level](offset)
            offset = self.lrelu(offset)
            feature = self.dcn_pack[level](neighbour[level], offset)
            if below is not None:
                feature = self.feat_conv[level](ops.cat((feature, below_feature), 1))
            if level > 0:
                feature = self.lrelu(feature)
                below, below_feature = 2 * twice(offset), twice(feature)
        offset = self.lrelu(self.cas_offset_conv1(ops.cat((feature, reference[0]), 1)))
        return self.lrelu(self.cas_dcnpack(feature, offset))


class TemporalSpatialFusion(nn.Cell):
    """EDVR's TSA: frames weighed by their likeness to the middle one, then a spatial attention."""

    def __init__(self, channels: int, frames: int) -> None:
        super().__init__()
        self.middle = frames // 2
        self.temporal_attn1 = conv(channels, channels)
        self.temporal_attn2 = conv(channels, channels)
        self.feat_fusion = conv(frames * channels, channels, 1)
        self.spatial_attn1 = conv(frames * channels, channels, 1)
        self.max_pool = nn.MaxPool2d(3, 2, "pad", 1)
        self.avg_pool = nn.AvgPool2d(3, 2, "pad", 1)
        self.spatial_attn2 = conv(2 * channels, channels, 1)
        self.spatial_attn3 = conv(channels, channels)
        self.spatial_attn_add = conv(channels, channels, 1)
        self.lrelu = nn.LeakyReLU(0.1)

    def construct(self, aligned):
        b, t, c, h, w = aligned.shape
        reference = self.temporal_attn1(aligned[:, self.middle])
        embedded = self.temporal_attn2(aligned.reshape(-1, c, h, w)).reshape(b, t, c, h, w)
        correlations = []
        for i in range(t):
            correlations.append((embedded[:, i] * reference).sum(1))
        weights = ops.sigmoid(ops.stack(correlations, 1)).unsqueeze(2)
        aligned = (aligned * ops.broadcast_to(weights, (b, t, c, h, w))).reshape(b, t * c, h, w)
        feature = self.lrelu(self.feat_fusion(aligned))
        attention = self.lrelu(self.spatial_attn1(aligned))
        pooled = ops.cat((self.max_pool(attention), self.avg_pool(attention)), 1)
        attention = self.spatial_attn3(twice(self.lrelu(self.spatial_attn2(pooled))))
        added = self.spatial_attn_add(self.lrelu(attention))
        return 2 * feature * ops.sigmoid(attention) + added


class EDVR(nn.Cell):
    def __init__(self, channels: int = 8, frames: int = 3) -> None:
        super().__init__()
        self.frames, self.middle = frames, frames // 2
        self.conv_first = conv(3, channels)
        self.extraction = ResidualBlock(channels)
        self.conv_l2 = conv(channels, channels, stride=2)
        self.conv_l3 = conv(channels, channels, stride=2)
        self.pcd_align = PyramidAlignment(channels, 4)
        self.fusion = TemporalSpatialFusion(channels, frames)
        self.reconstruction = nn.SequentialCell(ResidualBlock(channels), ResidualBlock(channels))
        self.upconv1 = conv(channels, 4 * channels)
        self.upconv2 = conv(channels, 4 * channels)
        self.pixel_shuffle = nn.PixelShuffle(2)
        self.conv_last = conv(channels, 3)
        self.lrelu = nn.LeakyReLU(0.1)

    def construct(self, x):
        b, t, c, h, w = x.shape
        level1 = self.extraction(self.lrelu(self.conv_first(x.reshape(b * t, c, h, w))))
        level2 = self.lrelu(self.conv_l2(level1))
        level3 = self.lrelu(self.conv_l3(level2))
        levels = (
            level1.reshape(b, t, -1, h, w),
            level2.reshape(b, t, -1, h // 2, w // 2),
            level3.reshape(b, t, -1, h // 4, w // 4),
        )
        reference = [level[:, self.middle] for level in levels]
        aligned = []
        for i in range(t):
            aligned.append(self.pcd_align([level[:, i] for level in levels], reference))
        feature = self.reconstruction(self.fusion(ops.stack(aligned, 1)))
        feature = self.lrelu(self.pixel_shuffle(self.upconv1(feature)))
        feature = self.lrelu(self.pixel_shuffle(self.upconv2(feature)))
        return self.conv_last(feature) + resize(x[:, self.middle], (4 * h, 4 * w))


def flow_warp(x, flow):
    """What the flow [N, H, W, (x, y)] points at."""
    h, w = x.shape[2:]
    y, x_ = ops.meshgrid(ops.arange(0, h), ops.arange(0, w), indexing="ij")
    grid = ops.stack((x_, y), 2).astype(x.dtype) + flow
    column = 2.0 * grid[:, :, :, 0] / max(w - 1, 1) - 1.0
    row = 2.0 * grid[:, :, :, 1] / max(h - 1, 1) - 1.0
    return ops.grid_sample(x, ops.stack((column, row), 3), "bilinear", "zeros", True)


class FlowGuidedAlignment(nn.Cell):
    """One step of BasicVSR++: features of two frames warped by flows, then aligned by both."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.deform_align = SecondOrderDeformableAlignment(
            2 * channels, channels, 3, padding=1, deform_groups=4
        )
        self.backbone = nn.SequentialCell(
            conv(2 * channels, channels), nn.LeakyReLU(0.1), ResidualBlock(channels)
        )

    def construct(self, current, first, second, flow1, flow2):
        flow2 = flow1 + flow_warp(flow2, flow1.permute(0, 2, 3, 1))
        condition1 = flow_warp(first, flow1.permute(0, 2, 3, 1))
        condition2 = flow_warp(second, flow2.permute(0, 2, 3, 1))
        condition = ops.cat((condition1, current, condition2), 1)
        feature = self.deform_align(ops.cat((first, second), 1), condition, flow1, flow2)
        feature = ops.cat((current, feature), 1)
        initial = ops.zeros(current.shape, current.dtype)
        return feature[:, :8] + self.backbone(feature) + initial


class ResNetDCN(nn.Cell):
    """ResNet-50's stages, deformable from the second on, with fewer blocks and channels."""

    def __init__(self, width: int = 4, blocks: tuple[int, ...] = (1, 2, 1, 1)) -> None:
        super().__init__()
        self.conv1 = conv(3, 8, 7, 2, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.maxpool = nn.MaxPool2d(3, 2, "pad", 1)
        self.channels = 8
        self.layers = nn.CellList(
            [self.stage(width << i, count, i) for i, count in enumerate(blocks)]
        )

    def stage(self, width: int, count: int, index: int):
        blocks = []
        for block in range(count):
            stride = 2 if index > 0 and block == 0 else 1
            blocks.append(Bottleneck(self.channels, width, stride, index > 0, 4, block == 0))
            self.channels = 4 * width
        return nn.SequentialCell(*blocks)

    def construct(self, x):
        x = self.maxpool(ops.relu(self.bn1(self.conv1(x))))
        outputs = ()
        for layer in self.layers:
            x = layer(x)
            outputs += (x,)
        return outputs


class FPN(nn.Cell):
    def __init__(self, inputs: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.lateral = nn.CellList([conv(channels, outputs, 1) for channels in inputs])
        self.output = nn.CellList([conv(outputs, outputs) for _ in inputs])

    def construct(self, features):
        last = len(features) - 1
        x = self.lateral[last](features[last])
        outputs = (self.output[last](x),)
        for level in range(last - 1, -1, -1):
            lateral = self.lateral[level](features[level])
            x = lateral + ops.interpolate(x, size=lateral.shape[2:], mode="nearest")
            outputs = (self.output[level](x), *outputs)
        return outputs


class Detector(nn.Cell):
    """RetinaNet's kind: all levels of a feature pyramid through shared heads."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.classes = classes
        self.backbone = ResNetDCN()
        self.neck = FPN((16, 32, 64, 128), 8)
        self.tower = nn.SequentialCell(conv(8, 8), nn.GroupNorm(2, 8), nn.ReLU())
        self.score = conv(8, classes)
        self.box = conv(8, 4)

    def construct(self, x):
        scores, boxes = [], []
        features = self.neck(self.backbone(x))
        pooled = ops.max_pool2d(features[-1], 1, 2)
        for feature in (*features, pooled):
            feature = self.tower(feature)
            n = feature.shape[0]
            scores.append(self.score(feature).permute(0, 2, 3, 1).reshape(n, -1, self.classes))
            boxes.append(self.box(feature).permute(0, 2, 3, 1).reshape(n, -1, 4))
        return ops.sigmoid(ops.cat(scores, 1)), ops.relu(ops.cat(boxes, 1))


class DBNet(nn.Cell):
    """Text detection: features of four levels, resized to the largest and joined."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = ResNetDCN()
        self.lateral = nn.CellList([conv(c, 8, 1, bias=False) for c in (16, 32, 64, 128)])
        self.smooth = nn.CellList([conv(8, 2, bias=False) for _ in range(4)])
        self.probability = self.head()
        self.threshold = self.head()

    def head(self):
        return nn.SequentialCell(
            conv(8, 4, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2dTranspose(4, 4, 2, 2, pad_mode="pad", has_bias=True),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2dTranspose(4, 1, 2, 2, pad_mode="pad", has_bias=True),
            nn.Sigmoid(),
        )

    def construct(self, x):
        features = self.backbone(x)
        laterals = [layer(feature) for layer, feature in zip(self.lateral, features)]
        for i in (3, 2, 1):
            size = laterals[i - 1].shape[2:]
            laterals[i - 1] = laterals[i - 1] + ops.interpolate(laterals[i], size=size)
        size = laterals[0].shape[2:]
        joined = []
        for layer, lateral in zip(self.smooth, laterals):
            joined.append(ops.interpolate(layer(lateral), size=size, mode="nearest"))
        fused = ops.cat(joined[::-1], 1)
        probability, threshold = self.probability(fused), self.threshold(fused)
        binary = ops.reciprocal(1 + ops.exp(-50 * (probability - threshold)))
        return ops.cat((probability, threshold, binary), 1)


class DeformableConv(nn.Cell):
    """BiRefNet's: offsets and mask from convolutions of their own, masks up to 2."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        padding, taps = kernel // 2, kernel * kernel
        self.offset_conv = conv(inputs, 2 * taps, kernel)
        self.modulator_conv = conv(inputs, taps, kernel)
        self.regular_conv = DeformConv2d(inputs, outputs, kernel, padding=padding, bias=False)

    def construct(self, x):
        mask = 2.0 * ops.sigmoid(self.modulator_conv(x))
        return self.regular_conv(x, self.offset_conv(x), mask)


class ASPPModule(nn.Cell):
    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.atrous_conv = DeformableConv(inputs, outputs, kernel)
        self.bn = nn.BatchNorm2d(outputs)

    def construct(self, x):
        return ops.relu(self.bn(self.atrous_conv(x)))


class ASPPDeformable(nn.Cell):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.aspp1 = ASPPModule(inputs, outputs, 1)
        self.aspp_deforms = nn.CellList([ASPPModule(inputs, outputs, k) for k in (1, 3, 7)])
        self.global_avg_pool = nn.SequentialCell(
            nn.AdaptiveAvgPool2d((1, 1)),
            conv(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )
        self.conv1 = conv(5 * outputs, outputs, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.dropout = nn.Dropout(p=0.5)

    def construct(self, x):
        x1 = self.aspp1(x)
        deformed = [layer(x) for layer in self.aspp_deforms]
        x5 = resize(self.global_avg_pool(x), x1.shape[2:], align_corners=True)
        x = self.conv1(ops.cat((x1, *deformed, x5), 1))
        return self.dropout(ops.relu(self.bn1(x)))


class DecoderBlock(nn.Cell):
    def __init__(self, inputs: int, outputs: int, channels: int = 4) -> None:
        super().__init__()
        self.conv_in = conv(inputs, channels)
        self.bn_in = nn.BatchNorm2d(channels)
        self.dec_att = ASPPDeformable(channels, channels)
        self.conv_out = conv(channels, outputs)
        self.bn_out = nn.BatchNorm2d(outputs)

    def construct(self, x):
        x = self.dec_att(ops.gelu(self.bn_in(self.conv_in(x))))
        return self.bn_out(self.conv_out(x))


class Decoder(nn.Cell):
    """Two of BiRefNet's blocks on features of the image, with patches of it beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.feature3 = nn.Conv2d(3, 8, 4, 4, "valid")
        self.feature4 = nn.Conv2d(8, 16, 2, 2, "valid")
        self.block4 = DecoderBlock(16, 8)
        self.lateral3 = conv(8, 8, 1)
        self.block3 = DecoderBlock(8 + 3 * 16, 4)
        self.norm = nn.GroupNorm(2, 4)
        self.out = conv(4, 1, 1)

    def construct(self, image):
        x3 = self.feature3(image)
        p4 = self.block4(ops.relu(self.feature4(x3)))
        p3 = resize(p4, x3.shape[2:], align_corners=True) + self.lateral3(x3)
        n, c, h, w = image.shape
        patches = image.reshape(n, c, h // 4, 4, w // 4, 4).permute(0, 1, 3, 5, 2, 4)
        patches = patches.reshape(n, c * 16, h // 4, w // 4)
        p3 = self.norm(self.block3(ops.cat((p3, patches), 1)))
        return ops.sigmoid(resize(self.out(p3), (h, w), align_corners=True))


# The shapes of the inputs by their names.
NETWORKS = {
    "EDVR": (EDVR, {"x": (1, 3, 3, 16, 24)}),
    "BasicVSR++": (
        FlowGuidedAlignment,
        {
            "current": (2, 8, 12, 16),
            "first": (2, 8, 12, 16),
            "second": (2, 8, 12, 16),
            "flow1": (2, 2, 12, 16),
            "flow2": (2, 2, 12, 16),
        },
    ),
    "DBNet": (DBNet, {"x": (1, 3, 64, 96)}),
    "ResNet-50-DCN with FPN": (Detector, {"x": (2, 3, 64, 96)}),
    "BiRefNet": (Decoder, {"image": (1, 3, 32, 48)}),
}


def make(name: str) -> nn.Cell:
    """A network with random parameters, of offsets too, for inference."""
    net = NETWORKS[name][0]()
    for i, parameter in enumerate(net.get_parameters()):
        value = random_array(parameter.shape, i) / max(1, np.prod(parameter.shape[1:])) ** 0.5
        if parameter.name.endswith(("gamma", "moving_variance")):
            value = np.abs(value) + 0.5
        parameter.set_data(ms.Tensor(value.astype(np.float32)))
    return net.set_train(False)


def inputs_of(name: str, shapes: dict[str, tuple[int, ...]] | None = None) -> list[ms.Tensor]:
    shapes = shapes or NETWORKS[name][1]
    return [ms.Tensor(random_array(shape, i)) for i, shape in enumerate(shapes.values())]
