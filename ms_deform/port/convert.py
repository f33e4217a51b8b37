# SPDX-License-Identifier: Apache-2.0
"""PyTorch checkpoints for MindSpore networks: `python -m ms_deform convert`, and from Python.

The network keeps PyTorch's attribute names; what its cells call their parameters is translated by
the type of each cell.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn

State = dict[str, np.ndarray]

_NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
    *(nn.LayerNorm, nn.GroupNorm),
)
# PyTorch's names of the parameters of a type of cell; other types keep theirs.
_NAMES = (
    (
        _NORMS,
        {
            "gamma": "weight",
            "beta": "bias",
            "moving_mean": "running_mean",
            "moving_variance": "running_var",
        },
    ),
    ((nn.Embedding, nn.EmbeddingLookup), {"embedding_table": "weight"}),
    ((nn.PReLU,), {"w": "weight"}),
)


class ConvertError(RuntimeError):
    """A checkpoint or a network could not be read; the message says what to do."""


@dataclass
class Report:
    """What became of every parameter, by PyTorch's names."""

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        lines = [f"matched: {len(self.matched)}"]
        for title, names in (
            ("missing, in the network only", self.missing),
            ("unexpected, in the checkpoint only", self.unexpected),
            ("of another shape", self.mismatched),
        ):
            lines += [f"{title}: {len(names)}", *(f"  {name}" for name in names)]
        return "\n".join(lines)


@dataclass(frozen=True)
class _Slot:
    """A parameter of the network, and what PyTorch calls and holds there."""

    name: str
    parameter: Parameter
    shape: tuple[int, ...]


def convert_state(
    state: Mapping[str, np.ndarray], net: nn.Cell, packed_offsets: str | None = None
) -> tuple[dict[str, Parameter], Report]:
    """A PyTorch state as parameters that ``mindspore.load_param_into_net`` takes, and a report.

    Args:
        state: Arrays by PyTorch's names.
        net: A network with PyTorch's attribute names. It is not changed.
        packed_offsets: The attribute name of convolutions that predict offsets, usually
            "conv_offset": their output channels change from torchvision's order to MindSpore's
            packed order. Default: None, all stay as they are.
    """
    state = dict(state)
    if packed_offsets is not None:
        _pack_predictors(state, packed_offsets)
    parameters, report = {}, Report()
    for slot in _with_progress(list(_slots(net))):
        array = state.pop(_name_in(state, slot.name), None)
        if array is None:
            report.missing.append(f"{slot.name} {slot.shape}")
        elif array.shape != slot.shape:
            report.mismatched.append(
                f"{slot.name}: {array.shape} in the checkpoint, {slot.shape} in the network"
            )
        else:
            report.matched.append(slot.name)
            tensor = Tensor(np.ascontiguousarray(array.reshape(slot.parameter.shape)))
            parameters[slot.parameter.name] = Parameter(
                tensor.astype(slot.parameter.dtype), name=slot.parameter.name
            )
    report.unexpected += [
        f"{name} {array.shape}"
        for name, array in state.items()
        # PyTorch's batch norm counts its steps; MindSpore's does not.
        if not name.endswith("num_batches_tracked")
    ]
    return parameters, report


def read_state(path: str | Path, key: str | None = None, prefix: str = "") -> State:
    """The arrays of a checkpoint by name: .safetensors, or whatever ``torch.save`` wrote.

    Args:
        path: The file.
        key: The entry that holds the parameters, where the file holds several.
        prefix: Take only names that begin so, without it. DataParallel's "module." goes by itself.

    Raises:
        ConvertError: If the file cannot be read, or holds no parameters or several sets of them.
    """
    path = Path(path)
    if not path.is_file():
        raise ConvertError(f"convert: there is no file {path}")
    tensors = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path, key)
    if all(name.startswith("module.") for name in tensors):
        tensors = _without_prefix(tensors, "module.")
    tensors = _without_prefix(tensors, prefix)
    if not tensors:
        raise ConvertError(f"convert: no parameter of {path} has a name that begins with {prefix}")
    return tensors


def import_net(name: str) -> nn.Cell:
    """The network that a factory named "package.module:factory" makes."""
    module, _, attribute = name.partition(":")
    try:
        factory = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConvertError(
            f"convert: no factory {name!r} ({error}); name it package.module:factory, from a "
            "directory where the package can be imported"
        ) from error
    net = factory()
    if not isinstance(net, nn.Cell):
        raise ConvertError(f"convert: {name} must return a Cell, got {type(net).__name__}")
    return net


def run(
    checkpoint: str,
    net: str,
    output: str,
    *,
    partial: bool = False,
    packed_offsets: str | None = None,
    key: str | None = None,
    prefix: str = "",
) -> int:
    """The command `convert`: prints the report; 0 if all matched, or `partial`."""
    network = import_net(net)
    parameters, report = convert_state(read_state(checkpoint, key, prefix), network, packed_offsets)
    print(report)
    if not report.complete and not partial:
        print(f"{output} is not written; --partial writes what matched")
        return 1
    ms.save_checkpoint(list(_entries(parameters)), output)
    print(f"wrote {output}")
    return 0


def _entries(parameters: Mapping[str, Parameter]) -> Iterator[dict[str, object]]:
    for name, parameter in parameters.items():
        yield {"name": name, "data": parameter}


def _slots(cell: nn.Cell, path: str = "") -> Iterator[_Slot]:
    names = next((names for types, names in _NAMES if isinstance(cell, types)), {})
    for attribute, parameter in cell.parameters_and_names(expand=False):
        shape = parameter.shape
        if isinstance(cell, (nn.Conv1d, nn.Conv1dTranspose)) and attribute == "weight":
            shape = (*shape[:2], shape[3])  # MindSpore's kernel has a height of 1
        yield _Slot(path + names.get(attribute, attribute), parameter, shape)
    for name, child in cell.name_cells().items():
        # MindSpore's BatchNorm3d is a BatchNorm2d inside.
        yield from _slots(child, path if isinstance(cell, nn.BatchNorm3d) else f"{path}{name}.")


def _name_in(state: State, name: str) -> str:
    # mmcv's layers first kept their conv_offset beside them, as layer_offset.
    old = name.replace(".conv_offset.", "_offset.")
    return old if name not in state and old in state else name


def _with_progress(slots: list[_Slot]) -> Iterable[_Slot]:
    try:
        from tqdm import tqdm
    except ImportError:
        return slots
    return tqdm(slots, desc="convert", unit="parameter")


def _read_safetensors(path: Path) -> State:
    return {
        name: _to_array(parameter)
        for name, parameter in ms.load_checkpoint(str(path), format="safetensors").items()
    }


def _to_array(tensor: Tensor) -> np.ndarray:
    return (tensor.astype(ms.float32) if tensor.dtype == ms.bfloat16 else tensor).asnumpy()


def _read_torch(path: Path, key: str | None) -> State:
    try:
        import torch
    except ImportError as error:
        raise ConvertError(
            f"convert: reading {path} needs torch, of which a build for CPUs will do: "
            'pip install "torch" "numpy>=1.25,<2", or save it as .safetensors, which needs no torch'
        ) from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ConvertError(
            f"convert: {path} holds more than tensors, which may run any code when it is read "
            f"({str(error).splitlines()[0]}). If you trust it, save its parameters alone with "
            "PyTorch: torch.save(torch.load(FILE, weights_only=False)['state_dict'], NEW_FILE)"
        ) from error
    if not isinstance(content, dict):
        raise ConvertError(
            f"convert: {path} must hold a dict of parameters, got {type(content).__name__}"
        )
    return {
        name: (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        for name, tensor in _choose_parameters(content, key, torch.Tensor).items()
        if isinstance(tensor, torch.Tensor)
    }


def _choose_parameters(content: dict, key: str | None, tensor: type) -> dict:
    """The entry of a checkpoint that holds the parameters, or the checkpoint itself."""
    entries = {
        name: entry
        for name, entry in content.items()
        if isinstance(entry, dict) and any(isinstance(value, tensor) for value in entry.values())
    }
    if key is not None:
        if key not in entries:
            raise ConvertError(
                f"convert: no parameters under {key!r}, expected one of {list(entries)}"
            )
        return entries[key]
    if any(isinstance(value, tensor) for value in content.values()):
        return content
    if len(entries) != 1:
        raise ConvertError(
            f"convert: there are {len(entries)} sets of parameters, under {list(entries)}; choose "
            "one with --key"
        )
    return next(iter(entries.values()))


def _without_prefix(state: State, prefix: str) -> State:
    return {name[len(prefix) :]: array for name, array in state.items() if name.startswith(prefix)}


def _pack_predictors(state: State, attribute: str) -> None:
    """Changes the output channels of convolutions of that name to MindSpore's packed order."""
    weights = [name for name in state if f".{name}".endswith(f".{attribute}.weight")]
    if not weights:
        raise ConvertError(
            f"convert: --packed-offsets: no {attribute}.weight in the checkpoint; name the "
            "convolution that predicts offsets: --packed-offsets NAME"
        )
    for name in weights:
        order = _packed_order(name, state[name].shape)
        bias = f"{name[: -len('weight')]}bias"
        for changed in (name, bias):
            if changed in state:
                state[changed] = state[changed][order]


def _packed_order(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """For each channel of [x | y | mask], or of [x | y], the one of [y, x, y, x, .. | mask].

    The convolution has the kernel of the deformable one, as in mmcv. Where the channels allow both,
    there is a mask, as MindSpore's builtin asks.
    """
    channels, taps = shape[0], shape[2] * shape[3]
    parts = next((parts for parts in (3, 2) if channels % (parts * taps) == 0), None)
    if parts is None:
        raise ConvertError(
            f"convert: --packed-offsets: {name} has {channels} output channels, expected a "
            f"multiple of 3 * {taps}, or of 2 * {taps} without masks"
        )
    samples = channels // parts
    offsets = np.arange(2 * samples).reshape(samples, 2)
    return np.concatenate([offsets[:, 1], offsets[:, 0], np.arange(2 * samples, channels)])
