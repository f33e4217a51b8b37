# SPDX-License-Identifier: Apache-2.0
"""The parameters of a PyTorch checkpoint as arrays."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor

from ms_deform.port import PortError

State = dict[str, np.ndarray]

# How files begin that stand in for a checkpoint, and what to do. None of it begins a .safetensors
# file: its first 8 bytes are a length, which no such text can be.
_STAND_INS = (
    (rb"$", "is empty: download it again, or save it again"),
    (
        rb"<[!?\w-]{4}",
        "is a web page, no checkpoint: download the file itself, by the page's link named raw or "
        "download",
    ),
    (
        rb"version https://git-lfs",
        "is Git LFS's pointer to the checkpoint: fetch the file itself with git lfs pull",
    ),
)


def read_state(path: str | Path, key: str | None = None) -> State:
    """The arrays of a checkpoint by name: .safetensors, or whatever ``torch.save`` wrote.

    Args:
        path: The file.
        key: The entry that holds the parameters, where the file holds several. Default: None, the
            only one, or "params_ema" beside "params", which is then said.

    Raises:
        PortError: If the file cannot be read, or holds no parameters or several sets of them.
    """
    path = Path(path)
    if not path.is_file():
        raise PortError(f"there is no file {path}")
    for pattern, mend in _STAND_INS:
        if re.match(pattern, _beginning(path).lstrip()):
            raise PortError(f"{path} {mend}")
    read = _read_safetensors if path.suffix == ".safetensors" else _read_torch
    return read(path, key)


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64)


def _read_safetensors(path: Path, key: str | None) -> State:
    try:
        parameters = ms.load_checkpoint(str(path), format="safetensors")
    except Exception as error:  # a damaged file can fail anywhere
        raise _damaged(path, error) from error
    arrays = {name: to_array(parameter) for name, parameter in parameters.items()}
    return _choose_parameters(arrays, key, np.ndarray)


def to_array(tensor: Tensor) -> np.ndarray:
    return (tensor.astype(ms.float32) if tensor.dtype == ms.bfloat16 else tensor).asnumpy()


def _read_torch(path: Path, key: str | None) -> State:
    try:
        import torch
    except ImportError as error:
        raise PortError(
            f"reading {path} needs torch, of which a build for CPUs will do: "
            'pip install "torch" "numpy>=1.25,<2", or save it as .safetensors, which needs no torch'
        ) from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can fail anywhere
        raise _refusal(path, error) from error
    if not isinstance(content, dict):
        raise PortError(
            f"{path} must hold a dict of parameters, got {type(content).__name__}; save what "
            "state_dict() gives"
        )
    return {
        str(name): (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
        for name, tensor in _choose_parameters(content, key, torch.Tensor).items()
        if isinstance(tensor, torch.Tensor)
    }


def _refusal(path: Path, error: Exception) -> PortError:
    """What is wrong with a file that torch does not read."""
    if isinstance(error, pickle.UnpicklingError):
        unsafe = re.search(r"GLOBAL (\w+(\.\w+)+)", str(error))
        if unsafe or _beginning(path).startswith(b"PK"):  # an archive, with a pickle in it
            return _unsafe(path, unsafe.group(1) if unsafe else "a new kind of pickle")
    return _damaged(path, error)


def _unsafe(path: Path, what: str) -> PortError:
    new = str(path.with_name(f"{path.stem}_state.pth"))
    program = (
        f"import torch; c = torch.load({str(path)!r}, weights_only=False); "
        f"torch.save(c.get('state_dict', c) if isinstance(c, dict) else c.state_dict(), {new!r})"
    )
    return PortError(
        f"{path} holds more than tensors, such as a pickled module ({what}), which may run any "
        "code when it is read. If you trust it, save its parameters alone, where Python can import "
        f'what it holds: python -c "{program}"'
    )


def _damaged(path: Path, error: Exception) -> PortError:
    # Of an UnpicklingError torch makes an essay on trust.
    known = str(error) and not isinstance(error, pickle.UnpicklingError)
    reason = str(error).splitlines()[0] if known else type(error).__name__
    return PortError(
        f"{path} is truncated, or no checkpoint of PyTorch's: download it again, or save it again "
        f"({reason})"
    )


def _choose_parameters(content: dict, key: str | None, tensor: type) -> dict:
    """The entry of a checkpoint that holds the parameters, or the checkpoint itself."""
    entries = {
        name: entry
        for name, entry in content.items()
        if isinstance(entry, dict) and any(isinstance(value, tensor) for value in entry.values())
    }
    if key in entries:
        return entries[key]
    if key is not None:
        mend = f"expected one of {list(entries)}" if entries else "there is one set: leave it out"
        raise PortError(f"--key: no parameters under {key!r}, {mend}")
    if not entries:
        if any(isinstance(value, tensor) for value in content.values()):
            return content
        raise PortError(f"there are no parameters in the checkpoint, only {list(content)}")
    if {"params", "params_ema"} <= entries.keys():
        print("key: params_ema, preferred to params; --key params takes the other")
        del entries["params"]
    if len(entries) > 1:
        raise PortError(
            f"there are {len(entries)} sets of parameters, under {list(entries)}; choose one with "
            "--key"
        )
    return next(iter(entries.values()))
