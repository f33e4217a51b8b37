# SPDX-License-Identifier: Apache-2.0
"""torchvision's deform_conv2d and its gradients, from and to NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torchvision

from reference import Gradients


def gradients(
    call: dict[str, Any], grad_output: np.ndarray, dtype: str = "float64", device: str = "cpu"
) -> tuple[np.ndarray, Gradients]:
    """The output and the gradients of sum(grad_output * output), computed in dtype."""
    options = {"dtype": getattr(torch, dtype), "device": device}
    tensors = {
        name: torch.tensor(value, **options, requires_grad=True)
        for name, value in call.items()
        if isinstance(value, np.ndarray)
    }
    arguments = {**call, **tensors}
    if len(call["padding"]) == 4:  # torchvision pads both sides alike; zeros around do the same
        top, bottom, left, right = call["padding"]
        padded = torch.nn.functional.pad(tensors["input"], (left, right, top, bottom))
        arguments.update(input=padded, padding=(0, 0))
    output = torchvision.ops.deform_conv2d(**arguments)
    output.backward(torch.tensor(grad_output, **options))
    grads = {name: tensor.grad.double().cpu().numpy() for name, tensor in tensors.items()}
    return output.detach().double().cpu().numpy(), Gradients(
        **{"mask": None, "bias": None, **grads}
    )
