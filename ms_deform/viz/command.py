# SPDX-License-Identifier: Apache-2.0
"""The command `python -m ms_deform viz`: the picture of a network on an image file."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from ms_deform.errors import first_line
from ms_deform.viz.layers import plot_layers
from ms_deform.viz.panels import new_figure
from ms_deform.viz.records import Record, record_offsets

Records = dict[str, list[Record]]


class PictureError(RuntimeError):
    """There is nothing to draw, or no way to; the message says what to do."""


def run(
    picture: str,
    net: nn.Cell,
    output: str,
    *,
    checkpoint: str | None = None,
    size: tuple[int, int] | None = None,
    gray: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    layer: Sequence[str] | None = None,
    group: int | None = None,
    call: int | str = -1,
) -> int:
    """Draws the layers of a network on an image file, and says what could be drawn.

    Raises:
        PictureError: If a file cannot be read or written, the checkpoint does not fit, the network
            fails, or there is no such layer, offset group or call.
    """
    path = _output_file(output)
    try:
        new_figure()  # Without matplotlib no network need run.
    except ImportError as error:
        raise PictureError(str(error)) from error
    image = read_image(picture, size, gray)
    if checkpoint is not None:
        load_weights(net, checkpoint)
    records = _record(net, normalise(image, mean, std), layer)
    for name, calls in records.items():
        groups = f", offset groups: {calls[0].offset_groups}" if calls else ""
        print(f"{name}: calls: {len(calls)}{groups}")
    try:
        figure = plot_layers(records, image, offset_group=group, call=call)
    except ValueError as error:
        raise PictureError(
            f"{_rule(error)}; --layer, --group and --call choose what is drawn"
        ) from error
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise PictureError(
            f"{path} cannot be written ({error}); name another file by --output"
        ) from error
    print(f"wrote {path}")
    return 0


def read_image(path: str, size: tuple[int, int] | None = None, gray: bool = False) -> np.ndarray:
    """An image file as [H, W, 3] or [H, W] in 0 to 1, float32, upright and resized to `size`."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file).convert("L" if gray else "RGB")
    except FileNotFoundError as error:
        raise PictureError(f"there is no file {path}") from error
    except (OSError, Image.DecompressionBombError) as error:
        raise PictureError(
            f"{path} cannot be read as an image ({error}); give a file that Pillow reads, such as "
            "a JPEG or PNG"
        ) from error
    if size is not None:
        image = image.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32) / 255


def normalise(
    image: np.ndarray, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> Tensor:
    """The network's input of an image: [1, channels, H, W]."""
    channels = np.atleast_3d(image)
    count = channels.shape[2]
    for name, values in (("--mean", mean), ("--std", std)):
        if values is not None and len(values) not in (1, count):
            raise PictureError(
                f"{name} must have a number for each of {count} channels, or one for all, got "
                f"{len(values)}"
            )
    if std is not None and min(std) <= 0:
        raise PictureError(f"--std must be greater than 0, got {min(std)}")
    channels = (channels - (0.0 if mean is None else mean)) / (1.0 if std is None else std)
    return Tensor(np.ascontiguousarray(channels.transpose(2, 0, 1)[None], np.float32))


def load_weights(net: nn.Cell, path: str) -> None:
    """Gives a network the parameters of a checkpoint, and those of its buffers that are in it."""
    state = _read_checkpoint(Path(path))
    wanted = net.parameters_dict()
    missing = [name for name in wanted if name not in state]
    if missing:
        raise PictureError(
            f"{path} does not fit the network: {len(missing)} of its {len(wanted)} parameters are "
            f"not in it, the first is {missing[0]}, where the checkpoint begins with "
            f"{next(iter(state), None)}; --net must make the network that was saved"
        )
    for name, parameter in wanted.items():
        if state[name].shape != parameter.shape:
            raise PictureError(
                f"{path} does not fit the network: {name} is {state[name].shape} in the "
                f"checkpoint, {parameter.shape} in the network; give --net the arguments it was "
                "saved with: 'net.py:Net(channels=16)'"
            )
    ms.load_param_into_net(net, {name: state[name] for name in wanted})
    buffers = {name: state[name] for name, _ in net.named_buffers() if name in state}
    if buffers:
        net.load_state_dict(buffers, strict=False)


def _read_checkpoint(path: Path) -> dict[str, ms.Parameter]:
    kind = path.suffix[1:]
    if kind not in ("ckpt", "safetensors"):
        raise PictureError(
            f"--checkpoint must be a .ckpt or .safetensors file of MindSpore's, got {path}; "
            "`python -m ms_deform convert` makes one of PyTorch's"
        )
    if not path.is_file():
        raise PictureError(f"there is no file {path}")
    try:
        return ms.load_checkpoint(str(path), format=kind)
    except Exception as error:  # a damaged file can fail anywhere
        raise PictureError(
            f"{path} cannot be read as a checkpoint: save it again with mindspore.save_checkpoint "
            f"({first_line(error)})"
        ) from error


def _record(net: nn.Cell, input: Tensor, layers: Sequence[str] | None) -> Records:
    """The calls of all layers, or of those that are named, while the network runs."""
    net.set_train(False)
    with ExitStack() as stack:
        try:
            records = stack.enter_context(record_offsets(net))
        except ValueError as error:
            raise PictureError(f"{_rule(error)}; name another network by --net") from error
        absent = sorted(set(layers or ()) - records.keys())
        if absent:
            raise PictureError(
                f"--layer: there is no deformable layer {absent[0]!r}, expected one of "
                f"{list(records)}"
            )
        try:
            net(input)
        except Exception as error:  # whatever the network's code raises
            raise PictureError(
                f"the network fails on an input of shape {input.shape}: {type(error).__name__}: "
                f"{first_line(error)}; --size and --gray change the shape, and "
                "ms_deform.record_offsets takes networks with other inputs"
            ) from error
    return {name: calls for name, calls in records.items() if not layers or name in layers}


def _output_file(output: str) -> Path:
    path = Path(output)
    if not path.parent.is_dir():
        raise PictureError(f"there is no folder {path.parent}; make it: mkdir -p {path.parent}")
    return path if path.suffix else path.with_suffix(".png")


def _rule(error: ValueError) -> str:
    """What a function's error says, without the function's name."""
    return str(error).partition(": ")[2]
