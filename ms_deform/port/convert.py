# SPDX-License-Identifier: Apache-2.0
"""PyTorch checkpoints for MindSpore networks: `python -m ms_deform convert`, and from Python.

The network keeps PyTorch's attribute names; what its cells call their parameters is translated by
the type of each cell.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn

from ms_deform.port import PortError
from ms_deform.port.checkpoint import State, read_state
from ms_deform.port.factory import make

_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(*_INSTANCE_NORMS, nn.LayerNorm, nn.GroupNorm),
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


@dataclass
class Report:
    """What became of every parameter and buffer, by PyTorch's names.

    prefix is what was found before the network's names in the checkpoint, and left_out how many
    names are without it.
    """

    prefix: str = ""
    left_out: int = 0
    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        lines = [f"matched: {len(self.matched)}"]
        if self.prefix:
            found = f"prefix found: {self.prefix} (--prefix takes another)"
            lines.insert(0, f"{found}, names without it, left out: {self.left_out}")
        for title, names in (
            ("missing, in the network only", self.missing),
            ("unexpected, in the checkpoint only", self.unexpected),
            ("of another shape", self.mismatched),
        ):
            lines += [f"{title}: {len(names)}", *(f"  {name}" for name in names)]
        return "\n".join(lines)


@dataclass(frozen=True)
class Slot:
    """A parameter or buffer of the network, and what PyTorch calls and holds there."""

    name: str
    target: str  # MindSpore's name of it in a checkpoint
    value: Tensor
    shape: tuple[int, ...]
    optional: bool = False


def convert_state(
    state: Mapping[str, np.ndarray],
    net: nn.Cell,
    packed_offsets: str | None = None,
    prefix: str | None = None,
    progress: bool = False,
) -> tuple[dict[str, Parameter], Report]:
    """A PyTorch state as parameters that ``mindspore.load_param_into_net`` takes, and a report.

    What only MindSpore has, such as the statistics of InstanceNorm, is among them as it is in the
    network. Buffers are, too; ``Cell.load_state_dict`` takes them.

    Args:
        state: Arrays by PyTorch's names.
        net: A network with PyTorch's attribute names. It is not changed.
        packed_offsets: The attribute name of convolutions that predict offsets, usually
            "conv_offset": their output channels change from torchvision's order to MindSpore's
            packed order. Default: None, all stay as they are.
        prefix: Take only names that begin so, without it. Default: None, what comes before the
            network's names, such as DataParallel's "module.", is found and reported.
        progress: Show a bar, where tqdm is there. Default: False.

    Raises:
        PortError: If no name begins with the prefix, or several prefixes suit, or there is no
            convolution to pack.
    """
    places, report = list(slots(net)), Report()
    if prefix is None:
        spellings = [spelling for slot in places for spelling in _spellings(slot.name)]
        needed = sum(not slot.optional for slot in places)
        report.prefix = prefix = find_prefix(state, spellings, needed)
    inside = without_prefix(state, prefix)
    report.left_out, state = len(state) - len(inside), inside
    if packed_offsets is not None:
        pack_predictors(state, packed_offsets)
    parameters = {}
    for slot in _with_progress(places) if progress else places:
        array = next((state.pop(name) for name in _spellings(slot.name) if name in state), None)
        if array is None:
            if slot.optional:
                parameters[slot.target] = slot.value.copy()
            else:
                report.missing.append(f"{slot.name} {slot.shape}")
        elif array.shape != slot.shape:
            report.mismatched.append(
                f"{slot.name}: {array.shape} in the checkpoint, {slot.shape} in the network"
            )
        else:
            report.matched.append(slot.name)
            tensor = Tensor(np.ascontiguousarray(array.reshape(slot.value.shape)))
            parameters[slot.target] = Parameter(tensor.astype(slot.value.dtype), name=slot.target)
    report.unexpected += [
        f"{name} {array.shape}"
        for name, array in state.items()
        # PyTorch's batch norm counts its steps; MindSpore's does not.
        if not name.endswith("num_batches_tracked")
    ]
    return parameters, report


def import_net(name: str) -> nn.Cell:
    """The network that a factory named "package.module:factory" makes."""
    net = make(name)
    if not isinstance(net, nn.Cell):
        raise PortError(f"{name} must return a Cell, got {type(net).__name__}")
    return net


def run(
    checkpoint: str,
    net: str,
    output: str,
    *,
    partial: bool = False,
    packed_offsets: str | None = None,
    key: str | None = None,
    prefix: str | None = None,
) -> int:
    """The command `convert`: prints the report; 0 if all matched, or some with `partial`."""
    path = _output_file(output)
    network = import_net(net)
    state = read_state(checkpoint, key)
    parameters, report = convert_state(state, network, packed_offsets, prefix, progress=True)
    print(report)
    if not report.matched:
        print(
            f"{path} is not written: nothing matched; give the network the attribute names of "
            "PyTorch's, or name what comes before them in the checkpoint by --prefix"
        )
        return 1
    if not report.complete and not partial:
        print(f"{path} is not written; --partial writes what matched")
        return 1
    _save(parameters, path)
    print(f"wrote {path}")
    buffers = parameters.keys() & dict(network.named_buffers())
    if buffers:
        print(
            f"buffers in it: {len(buffers)}, which load_param_into_net does not load; "
            f'net.load_state_dict(mindspore.load_checkpoint("{path}"), strict=False) does'
        )
    return 0


def _output_file(output: str) -> Path:
    """Where MindSpore will write, which takes names that end with .ckpt only."""
    path = Path(output if output.endswith(".ckpt") else f"{output}.ckpt")
    if not path.parent.is_dir():
        raise PortError(f"there is no folder {path.parent}; make it: mkdir -p {path.parent}")
    return path


def _save(parameters: Mapping[str, Parameter], path: Path) -> None:
    entries = [{"name": name, "data": parameter} for name, parameter in parameters.items()]
    try:
        ms.save_checkpoint(entries, str(path))
    except OSError as error:
        raise PortError(
            f"{path} cannot be written ({error}); name another file by --output"
        ) from error


def slots(cell: nn.Cell, path: str = "") -> Iterator[Slot]:
    names = next((names for types, names in _NAMES if isinstance(cell, types)), {})
    for attribute, parameter in cell.parameters_and_names(expand=False):
        shape = parameter.shape
        if isinstance(cell, (nn.Conv1d, nn.Conv1dTranspose)) and attribute == "weight":
            shape = (*shape[:2], shape[3])  # MindSpore's kernel has a height of 1
        name = path + names.get(attribute, attribute)
        optional = _is_optional(cell, attribute, parameter)
        yield Slot(name, parameter.name, parameter, shape, optional)
    for name, buffer in cell.named_buffers(recurse=False):
        if name in cell.state_dict():  # not those that no checkpoint holds
            yield Slot(path + name, path + name, buffer, buffer.shape)
    for name, child in cell.name_cells().items():
        # MindSpore's BatchNorm3d is a BatchNorm2d inside.
        yield from slots(child, path if isinstance(cell, nn.BatchNorm3d) else f"{path}{name}.")


def _is_optional(cell: nn.Cell, attribute: str, parameter: Parameter) -> bool:
    """PyTorch's norms hold no weights if not affine, and InstanceNorm no statistics."""
    if attribute in ("gamma", "beta"):
        return isinstance(cell, _NORMS) and not parameter.requires_grad
    return isinstance(cell, _INSTANCE_NORMS)


def _spellings(name: str) -> tuple[str, str]:
    # mmcv's layers first kept their conv_offset beside them, as layer_offset.
    return name, name.replace(".conv_offset.", "_offset.")


def find_prefix(names: Iterable[str], wanted: Iterable[str], needed: int) -> str:
    """What comes before the wanted names in a checkpoint, if that brings most of the needed in."""
    wanted = set(wanted)
    counts = Counter(
        name[:start]
        for name in names
        for start in (0, *(match.end() for match in re.finditer(r"\.", name)))
        if name[start:] in wanted
    )
    most = max(counts.values(), default=0)
    if counts[""] == most or 2 * most <= needed:
        return ""
    prefixes = [prefix for prefix, count in counts.items() if count == most]
    if len(prefixes) > 1:
        raise PortError(
            f"the network's names come after each of {prefixes[:5]} in the checkpoint; choose one: "
            f"--prefix {prefixes[0]}"
        )
    return prefixes[0]


def without_prefix(state: Mapping[str, np.ndarray], prefix: str) -> State:
    inside = {
        name[len(prefix) :].lstrip("."): array
        for name, array in state.items()
        if name.startswith(prefix)
    }
    if state and not inside:
        starts = sorted({name.partition(".")[0] for name in state})
        raise PortError(
            f"--prefix: no parameter has a name that begins with {prefix}, they begin with "
            f"{starts[:5]}"
        )
    return inside


def _with_progress(slots: list[Slot]) -> Iterable[Slot]:
    try:
        from tqdm import tqdm
    except ImportError:
        return slots
    return tqdm(slots, desc="convert", unit="parameter")


def pack_predictors(state: State, attribute: str) -> None:
    """Changes the output channels of convolutions of that name to MindSpore's packed order."""
    weights = [name for name in state if f".{name}".endswith(f".{attribute}.weight")]
    if not weights:
        raise PortError(
            f"--packed-offsets: no {attribute}.weight in the checkpoint; name the "
            "convolution that predicts offsets: --packed-offsets NAME"
        )
    for name in weights:
        order = packed_order(name, state[name].shape)
        bias = f"{name[: -len('weight')]}bias"
        for changed in (name, bias):
            if changed in state:
                state[changed] = state[changed][order]


def packed_order(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """For each channel of [x | y | mask], or of [x | y], the one of [y, x, y, x, .. | mask].

    The convolution has the kernel of the deformable one, as in mmcv. Where the channels allow both,
    there is a mask, as MindSpore's builtin asks.
    """
    channels, taps = shape[0], shape[2] * shape[3]
    parts = next((parts for parts in (3, 2) if channels % (parts * taps) == 0), None)
    if parts is None:
        raise PortError(
            f"--packed-offsets: {name} has {channels} output channels, expected a "
            f"multiple of 3 * {taps}, or of 2 * {taps} without masks"
        )
    samples = channels // parts
    offsets = np.arange(2 * samples).reshape(samples, 2)
    return np.concatenate([offsets[:, 1], offsets[:, 0], np.arange(2 * samples, channels)])
