# SPDX-License-Identifier: Apache-2.0
"""MindIR files that hold MindSpore's own primitives only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn
from mindspore.train.mind_ir_pb2 import ModelProto

from ms_deform.backends import check_soc, composition, forced_backend
from ms_deform.backends.ai_core_layout import Target
from ms_deform.export.tracing import inference
from ms_deform.hints import check_inputs
from ms_deform.install import ai_core

# Of each dtype, relative to the largest value of an output: how far the file may be from the
# network, whose layers may have run on another backend.
_TOLERANCES = {"float16": 1e-2, "bfloat16": 5e-2}
_TOLERANCE = 1e-4

# Runs the file where ms_deform cannot be imported.
_RUN = """
import sys
sys.modules["ms_deform"] = None
import mindspore as ms
import numpy as np
from mindspore import nn

device_target, file_name, dtypes, folder = sys.argv[1:]
ms.set_device(device_target)
inputs = [
    ms.Tensor(np.load(f"{folder}/input{i}.npy")).astype(getattr(ms, dtype))
    for i, dtype in enumerate(dtypes.split())
]
outputs = nn.GraphCell(ms.load(file_name))(*inputs)
outputs = outputs if isinstance(outputs, tuple) else (outputs,)
for i, output in enumerate(outputs):
    np.save(f"{folder}/output{i}.npy", output.astype(ms.float32).asnumpy())
"""


def export_mindir(
    net: nn.Cell, *inputs: Tensor, file_name: str | Path, soc: str = "Ascend910B4"
) -> str:
    """
    Writes a network as a MindIR file that runs where ms_deform is not installed: on Ascend through
    MindSpore or MindSpore Lite, and elsewhere.

    Deformable layers become MindSpore's own ``DeformableOffsets`` and ``Conv2D``, those with a
    `backend` of their own too, laid out so that CANN computes them on the AI Core of `soc`. The
    file is then run in a new process that cannot import ms_deform, on the same inputs and device
    target, and its outputs are compared with the network's.

    Args:
        net (Cell): The network. It is exported as for inference, whether it is being trained or
            not.
        inputs (Tensor): Inputs with values, as the network is called with. Their shapes are those
            that the file takes.
        file_name (Union[str, Path]): The file; ".mindir" is added where it is missing.
        soc (str, optional): The Ascend SoC that the file is for. Default: ``"Ascend910B4"`` , whose
            layout serves all Atlas A2 and A3.

    Returns:
        str, the path of the file.

    Raises:
        TypeError: If an input is not a Tensor.
        ValueError: If there is no such SoC.
        ValueError: If the graph holds custom operators, such as ``ops.Custom`` of the network's
            own.
        RuntimeError: If the file does not run, or gives other outputs than the network.
        NotImplementedError: If a call does not keep the limits of the backend "composition".

    Supported Platforms:
        ``CPU`` ``GPU`` ``Ascend``

    Examples:
        >>> import tempfile
        >>> from mindspore import ops
        >>> from ms_deform import ModulatedDeformConv2dPack, export_mindir
        >>> net = ModulatedDeformConv2dPack(3, 4, 3, padding=1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = export_mindir(net, ops.ones((1, 3, 8, 8)), file_name=folder + "/net")
        >>> path.endswith("/net.mindir")
        True
    """
    check_inputs("export_mindir", inputs)
    target = Target(check_soc("export_mindir: 'soc'", soc), ai_core.GRAPH_ENGINE, training=False)
    path = Path(file_name)
    path = path if path.suffix == ".mindir" else path.with_name(f"{path.name}.mindir")
    with inference(net):
        with forced_backend(net, composition.LaidOut(target)):
            ms.export(net, *inputs, file_name=str(path), file_format="MINDIR")
        expected = net(*inputs)
    _check_operators(path)
    _check_outputs(path, inputs, expected if isinstance(expected, tuple) else (expected,))
    return str(path)


def _check_operators(path: Path) -> None:
    model = ModelProto()
    model.ParseFromString(path.read_bytes())
    if any(primitive.op_type == "Custom" for primitive in model.primitives):
        path.unlink()
        raise ValueError(
            f"export_mindir: the graph holds ops.Custom operators, which {path} cannot carry to "
            "another machine; leave them out of the network"
        )


def _check_outputs(path: Path, inputs: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    with TemporaryDirectory() as folder:
        for position, tensor in enumerate(inputs):
            exact = tensor.astype(ms.float32) if tensor.dtype == ms.bfloat16 else tensor
            np.save(f"{folder}/input{position}.npy", exact.asnumpy())
        dtypes = " ".join(str(tensor.dtype).lower() for tensor in inputs)
        device_target = ms.get_context("device_target")
        command = [sys.executable, "-c", _RUN, device_target, str(path), dtypes, folder]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"export_mindir: {path} does not run:\n{done.stderr.strip()}")
        for position, tensor in enumerate(expected):
            _check_close(path, position, np.load(f"{folder}/output{position}.npy"), tensor)


def _check_close(path: Path, position: int, actual: np.ndarray, expected: Tensor) -> None:
    wanted = expected.astype(ms.float32).asnumpy()
    tolerance = _TOLERANCES.get(str(expected.dtype).lower(), _TOLERANCE)
    scale = max(1.0, float(np.abs(wanted).max(initial=0)))
    error = float(np.abs(actual - wanted).max(initial=0)) / scale
    # Written so that a NaN fails.
    if not error <= tolerance:
        raise RuntimeError(
            f"export_mindir: output {position} of {path} differs from the network's by {error:.1e} "
            f"of its largest value, more than {tolerance:.0e}; a network that gives other outputs "
            "at every call (dropout in construct, random numbers) cannot be checked"
        )
