# SPDX-License-Identifier: Apache-2.0
"""Two networks with the same weights, and inputs for both, as a command line names them."""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import mindspore as ms
import numpy as np
import torch
from mindspore import Tensor, nn

from ms_deform.port import PortError
from ms_deform.port.checkpoint import read_state
from ms_deform.port.convert import (
    convert_state,
    find_prefix,
    import_net,
    slots,
    without_prefix,
)
from ms_deform.port.culprits import notes
from ms_deform.port.factory import make
from ms_deform.port.layers import Arrays, arrays_of, match


class Pair(NamedTuple):
    """The same network twice, with the same weights.

    prefix is what comes before MindSpore's names in PyTorch's, packed_offsets the name of
    convolutions whose channels have MindSpore's packed order.
    """

    net: nn.Cell
    module: torch.nn.Module
    prefix: str = ""
    packed_offsets: str | None = None

    def matched(self, theirs: Mapping[str, torch.Tensor]) -> dict[str, tuple[Tensor, torch.Tensor]]:
        """Parameters and buffers of both, by PyTorch's names without the prefix."""
        return {
            slot.name: (slot.value, theirs[name])
            for slot in slots(self.net)
            for name in [f"{self.prefix}{slot.name}"]
            if name in theirs and slot.shape == tuple(theirs[name].shape)
        }

    def weights(self) -> dict[str, tuple[Tensor, torch.Tensor]]:
        """The parameters of both, whether trained or not."""
        return self.matched(dict(self.module.named_parameters()))

    def trained_in_one(self) -> list[str]:
        """Names of parameters that are frozen in one network, but not in the other."""
        return [
            f"{name} ({'MindSpore' if ours.requires_grad else 'PyTorch'})"
            for name, (ours, theirs) in self.weights().items()
            if ours.requires_grad != theirs.requires_grad
        ]


def inputs_of(options: argparse.Namespace) -> Arrays:
    if options.inputs is None:
        random = np.random.default_rng(options.seed)
        return [random.standard_normal(shape).astype(np.float32) for shape in options.input]
    path = Path(options.inputs)
    save = 'numpy.savez("inputs.npz", images)'
    if not path.is_file():
        raise PortError(f"--inputs: there is no file {path}; write one: {save}")
    try:
        with np.load(path) as file:
            arrays = [file[name] for name in file.files]
    except (ValueError, OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise PortError(f"--inputs: {path} is no .npz file of arrays; write one: {save}") from error
    if not arrays:
        raise PortError(f"--inputs: {path} holds no array; write one: {save}")
    return arrays


def load(options: argparse.Namespace) -> Pair:
    """Both networks, with the checkpoint's weights, or PyTorch's fresh ones."""
    torch.manual_seed(options.seed)
    ms.set_seed(options.seed)
    module = make(options.torch)
    if not isinstance(module, torch.nn.Module):
        raise PortError(
            f"--torch: {options.torch} must return a Module of PyTorch's, got "
            f"{type(module).__name__}"
        )
    if options.checkpoint is None:
        _move_constants(module)
        print(
            f"weights: PyTorch's fresh ones of seed {options.seed}, constant ones moved at random"
        )
    else:
        print(f"weights: {options.checkpoint}", flush=True)
        _load_checkpoint(module, options)
    net = import_net(options.net)
    state = {name: arrays_of(tensor)[0] for name, tensor in module.state_dict().items()}
    parameters, report = convert_state(state, net, options.packed_offsets)
    print(f"parameters that match: {len(report.matched)}")
    if not report.complete:
        print(str(report).replace("the checkpoint", "PyTorch's network"))
        if not options.partial:
            for note in notes(match(net, module, report.prefix)):
                print(note)
            raise PortError(
                f"the parameters of {options.net} and {options.torch} do not match, see above: "
                "give both the same layers, or compare the rest by --partial"
            )
    buffers = dict(net.named_buffers())
    ms.load_param_into_net(net, {k: v for k, v in parameters.items() if k not in buffers})
    net.load_state_dict({k: v for k, v in parameters.items() if k in buffers}, strict=False)
    return Pair(net, module, report.prefix, options.packed_offsets)


def _load_checkpoint(module: torch.nn.Module, options: argparse.Namespace) -> None:
    state = read_state(options.checkpoint, options.key)
    own = module.state_dict()
    prefix = options.prefix
    if prefix is None:
        prefix = find_prefix(state, own, len(own))
        if prefix:
            print(f"prefix found: {prefix} (--prefix takes another)")
    state = without_prefix(state, prefix)
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    try:
        missing, unexpected = module.load_state_dict(tensors, strict=False)
        others = [f"{n} missing" for n in missing if not n.endswith("num_batches_tracked")]
        others += [f"{name} unexpected" for name in unexpected]
    except RuntimeError as error:  # of shapes, at the second line
        others = [line.strip() for line in str(error).splitlines()[1:]]
    if others and not (options.partial and len(others) < len(own)):
        raise PortError(
            f"{options.checkpoint} does not fit {options.torch}: {', '.join(others[:5])}"
            f"{' ...' * (len(others) > 5)}; name the factory, with the arguments, that the "
            "checkpoint was made with"
        )


def _move_constants(module: torch.nn.Module) -> None:
    """Zeros and ones of a fresh network would hide mistakes, as offsets of zero do."""
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            values = tensor.reshape(-1)
            if tensor.is_floating_point() and len(values) > 1 and (values == values[0]).all():
                move = 0.1 * torch.randn_like(tensor)
                tensor.add_(move.abs() if name.endswith("running_var") else move)
