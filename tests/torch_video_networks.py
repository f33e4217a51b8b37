# SPDX-License-Identifier: Apache-2.0
"""Networks of exported_networks.py as their origins have them, in PyTorch."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from torch_layers import DCNv2Pack, SecondOrderDeformableAlignment
from torch_networks import Bottleneck, conv


def twice(x):
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels)
        self.conv2 = conv(channels, channels)

    def forward(self, x):
        return x + self.conv2(torch.relu(self.conv1(x)))


class PyramidAlignment(nn.Module):
    """EDVR's PCD."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        pack = {"padding": 1, "deformable_groups": groups}
        self.offset_conv1 = nn.ModuleList(conv(2 * channels, channels) for _ in range(3))
        self.offset_conv2 = nn.ModuleList(
            conv((2 if level < 2 else 1) * channels, channels) for level in range(3)
        )
        self.offset_conv3 = nn.ModuleList(conv(channels, channels) for _ in range(2))
        self.dcn_pack = nn.ModuleList(DCNv2Pack(channels, channels, 3, **pack) for _ in range(3))
        self.feat_conv = nn.ModuleList(conv(2 * channels, channels) for _ in range(2))
        self.cas_offset_conv1 = conv(2 * channels, channels)
        self.cas_dcnpack = DCNv2Pack(channels, channels, 3, **pack)
        self.lrelu = nn.LeakyReLU(0.1)

    def forward(self, neighbour, reference):
        below = below_feature = feature = None
        for level in (2, 1, 0):
            offset = torch.cat((neighbour[level], reference[level]), 1)
            offset = self.lrelu(self.offset_conv1[level](offset))
            if below is None:
                offset = self.lrelu(self.offset_conv2[level](offset))
            else:
                offset = self.lrelu(self.offset_conv2[level](torch.cat((offset, below), 1)))
                offset = self.lrelu(self.offset_conv3[level](offset))
            feature = self.dcn_pack[level](neighbour[level], offset)
            if below is not None:
                feature = self.feat_conv[level](torch.cat((feature, below_feature), 1))
            if level > 0:
                feature = self.lrelu(feature)
                below, below_feature = 2 * twice(offset), twice(feature)
        offset = self.lrelu(self.cas_offset_conv1(torch.cat((feature, reference[0]), 1)))
        return self.lrelu(self.cas_dcnpack(feature, offset))


class TemporalSpatialFusion(nn.Module):
    """EDVR's TSA."""

    def __init__(self, channels: int, frames: int) -> None:
        super().__init__()
        self.middle = frames // 2
        self.temporal_attn1 = conv(channels, channels)
        self.temporal_attn2 = conv(channels, channels)
        self.feat_fusion = conv(frames * channels, channels, 1)
        self.spatial_attn1 = conv(frames * channels, channels, 1)
        self.max_pool = nn.MaxPool2d(3, 2, 1)
        self.avg_pool = nn.AvgPool2d(3, 2, 1)
        self.spatial_attn2 = conv(2 * channels, channels, 1)
        self.spatial_attn3 = conv(channels, channels)
        self.spatial_attn_add = conv(channels, channels, 1)
        self.lrelu = nn.LeakyReLU(0.1)

    def forward(self, aligned):
        b, t, c, h, w = aligned.shape
        reference = self.temporal_attn1(aligned[:, self.middle])
        embedded = self.temporal_attn2(aligned.reshape(-1, c, h, w)).reshape(b, t, c, h, w)
        correlations = [(embedded[:, i] * reference).sum(1) for i in range(t)]
        weights = torch.sigmoid(torch.stack(correlations, 1)).unsqueeze(2)
        aligned = (aligned * weights).reshape(b, t * c, h, w)
        feature = self.lrelu(self.feat_fusion(aligned))
        attention = self.lrelu(self.spatial_attn1(aligned))
        pooled = torch.cat((self.max_pool(attention), self.avg_pool(attention)), 1)
        attention = self.spatial_attn3(twice(self.lrelu(self.spatial_attn2(pooled))))
        added = self.spatial_attn_add(self.lrelu(attention))
        return 2 * feature * torch.sigmoid(attention) + added


class EDVR(nn.Module):
    def __init__(self, channels: int = 8, frames: int = 3) -> None:
        super().__init__()
        self.middle = frames // 2
        self.conv_first = conv(3, channels)
        self.extraction = ResidualBlock(channels)
        self.conv_l2 = conv(channels, channels, stride=2)
        self.conv_l3 = conv(channels, channels, stride=2)
        self.pcd_align = PyramidAlignment(channels, 4)
        self.fusion = TemporalSpatialFusion(channels, frames)
        self.reconstruction = nn.Sequential(ResidualBlock(channels), ResidualBlock(channels))
        self.upconv1 = conv(channels, 4 * channels)
        self.upconv2 = conv(channels, 4 * channels)
        self.pixel_shuffle = nn.PixelShuffle(2)
        self.conv_last = conv(channels, 3)
        self.lrelu = nn.LeakyReLU(0.1)

    def forward(self, x):
        b, t, c, h, w = x.shape
        level1 = self.extraction(self.lrelu(self.conv_first(x.reshape(b * t, c, h, w))))
        level2 = self.lrelu(self.conv_l2(level1))
        level3 = self.lrelu(self.conv_l3(level2))
        levels = [level.unflatten(0, (b, t)) for level in (level1, level2, level3)]
        reference = [level[:, self.middle] for level in levels]
        aligned = [self.pcd_align([level[:, i] for level in levels], reference) for i in range(t)]
        feature = self.reconstruction(self.fusion(torch.stack(aligned, 1)))
        feature = self.lrelu(self.pixel_shuffle(self.upconv1(feature)))
        feature = self.lrelu(self.pixel_shuffle(self.upconv2(feature)))
        return self.conv_last(feature) + four_times(x[:, self.middle])


def four_times(x):
    return functional.interpolate(x, scale_factor=4, mode="bilinear", align_corners=False)


def flow_warp(x, flow):
    """What the flow [N, H, W, (x, y)] points at."""
    h, w = x.shape[2:]
    y, column = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    grid = torch.stack((column, y), 2) + flow
    grid = 2 * grid / torch.tensor([max(w - 1, 1), max(h - 1, 1)]) - 1
    return functional.grid_sample(x, grid, "bilinear", "zeros", True)


class FlowGuidedAlignment(nn.Module):
    """One step of BasicVSR++."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.deform_align = SecondOrderDeformableAlignment(
            2 * channels, channels, 3, padding=1, deform_groups=4
        )
        self.backbone = nn.Sequential(
            conv(2 * channels, channels), nn.LeakyReLU(0.1), ResidualBlock(channels)
        )

    def forward(self, current, first, second, flow1, flow2):
        flow2 = flow1 + flow_warp(flow2, flow1.permute(0, 2, 3, 1))
        condition1 = flow_warp(first, flow1.permute(0, 2, 3, 1))
        condition2 = flow_warp(second, flow2.permute(0, 2, 3, 1))
        condition = torch.cat((condition1, current, condition2), 1)
        feature = self.deform_align(torch.cat((first, second), 1), condition, flow1, flow2)
        feature = torch.cat((current, feature), 1)
        return feature[:, :8] + self.backbone(feature)


class ResNetDCN(nn.Module):
    def __init__(self, width: int = 4, blocks: tuple[int, ...] = (1, 2, 1, 1)) -> None:
        super().__init__()
        self.conv1 = conv(3, 8, 7, 2, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.channels = 8
        self.layers = nn.ModuleList(
            self.stage(width << i, count, i) for i, count in enumerate(blocks)
        )

    def stage(self, width: int, count: int, index: int):
        blocks = []
        for block in range(count):
            stride = 2 if index > 0 and block == 0 else 1
            blocks.append(Bottleneck(self.channels, width, stride, index > 0, 4, block == 0))
            self.channels = 4 * width
        return nn.Sequential(*blocks)

    def forward(self, x):
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        outputs = []
        for layer in self.layers:
            x = layer(x)
            outputs.append(x)
        return outputs


class FPN(nn.Module):
    def __init__(self, inputs: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(conv(channels, outputs, 1) for channels in inputs)
        self.output = nn.ModuleList(conv(outputs, outputs) for _ in inputs)

    def forward(self, features):
        x = None
        outputs = []
        for feature, lateral, output in reversed([*zip(features, self.lateral, self.output)]):
            feature = lateral(feature)
            if x is not None:
                feature = feature + functional.interpolate(x, feature.shape[2:], mode="nearest")
            x = feature
            outputs.insert(0, output(x))
        return outputs


class Detector(nn.Module):
    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.classes = classes
        self.backbone = ResNetDCN()
        self.neck = FPN((16, 32, 64, 128), 8)
        self.tower = nn.Sequential(conv(8, 8), nn.GroupNorm(2, 8), nn.ReLU())
        self.score = conv(8, classes)
        self.box = conv(8, 4)

    def forward(self, x):
        scores, boxes = [], []
        features = self.neck(self.backbone(x))
        for feature in (*features, functional.max_pool2d(features[-1], 1, 2)):
            feature = self.tower(feature)
            scores.append(self.score(feature).permute(0, 2, 3, 1).flatten(1, 2))
            boxes.append(self.box(feature).permute(0, 2, 3, 1).flatten(1, 2))
        return torch.sigmoid(torch.cat(scores, 1)), torch.relu(torch.cat(boxes, 1))
