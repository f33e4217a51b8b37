# SPDX-License-Identifier: Apache-2.0
"""The proof that both networks compute the same, and a step of training in graph mode."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import torch
from mindspore import nn
from net import Net
from torch_net import Net as TorchNet

ms.set_context(mode=ms.GRAPH_MODE)
net, torch_net = Net(), TorchNet().eval()
ms.load_checkpoint("net.ckpt", net)
torch_net.load_state_dict(torch.load("net.pth"))
images = np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype(np.float32)
with torch.no_grad():
    expected = torch_net(torch.from_numpy(images)).numpy()
actual = net(ms.Tensor(images)).asnumpy()
np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
print(f"the outputs differ by at most {np.abs(actual - expected).max():.0e}")

loss = nn.WithLossCell(net, nn.CrossEntropyLoss())
step = nn.TrainOneStepCell(loss, nn.SGD(net.trainable_params(), 0.01, momentum=0.9)).set_train()
print("loss of a step:", step(ms.Tensor(images), ms.Tensor([1, 2, 3, 4], ms.int32)))
