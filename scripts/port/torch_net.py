# SPDX-License-Identifier: Apache-2.0
"""A network in PyTorch; run, it writes the weights of one as net.pth."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.ops import DeformConv2d


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.offset = nn.Conv2d(16, 27, 3, padding=1)
        self.deform = DeformConv2d(16, 32, 3, padding=1)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        predicted = self.offset(x)
        x = self.deform(x, predicted[:, :18], torch.sigmoid(predicted[:, 18:]))
        return self.head(torch.relu(x).mean((2, 3)))


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.save(Net().state_dict(), "net.pth")
