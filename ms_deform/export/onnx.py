# SPDX-License-Identifier: Apache-2.0
"""ONNX files of whole networks, whose deformable layers are the standard ``DeformConv``.

MindSpore compiles the network; its graph is read from MindIR and translated node by node, so that
its own ONNX exporter, which knows few operators, takes no part.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mindspore import Tensor, get_current_device, nn

from ms_deform.backends import forced_backend
from ms_deform.export.tracing import inference, trace
from ms_deform.hints import check_inputs
from ms_deform.install.library import LIBRARY_TARGETS

if TYPE_CHECKING:
    import onnx

    from ms_deform.export.translation import Translation

OPSETS = (19, 22)  # those that define DeformConv


def export_onnx(
    net: nn.Cell,
    *inputs: Tensor,
    file_name: str | Path,
    opset_version: int = 19,
    dynamic_axes: Mapping[str, Mapping[int, str]] | None = None,
) -> str:
    """
    Writes a network as an ONNX file whose deformable layers are the standard ``DeformConv``.

    Needs the package onnx: ``pip install "onnx>=1.17,<2" "numpy>=1.25,<2"``. onnxruntime runs
    ``DeformConv`` from version 1.25 on. The inputs of the file have the names of the arguments of
    `construct`, its outputs are "output", or "output_0" and so on.

    Note:
        With `dynamic_axes` the network is also compiled at other sizes, two to five times those of
        `inputs`, which should not be smaller than all strides of the network together. What a layer
        takes from a size must follow from the sizes of tensors in the same way at all of them, or
        the layer is named in an error.

    Args:
        net (Cell): The network. It is exported as for inference.
        inputs (Tensor): Inputs of the shapes that the file is to take.
        file_name (Union[str, Path]): The file; ".onnx" is added where it is missing.
        opset_version (int, optional): 19 or 22, the versions of ONNX's operators that define
            ``DeformConv``. Default: ``19`` .
        dynamic_axes (dict[str, dict[int, str]], optional): The axes of inputs whose sizes the file
            leaves free, with a name for each; axes of one name have the same size. For example
            ``{"x": {0: "batch", 2: "height", 3: "width"}}``. Default: ``None`` , no axis.

    Returns:
        str, the path of the file.

    Raises:
        ImportError: If the package onnx is missing.
        TypeError: If an input is not a Tensor.
        ValueError: If `opset_version` is neither 19 nor 22.
        ValueError: If `dynamic_axes` names an input or an axis that there is not.
        RuntimeError: If the network holds what cannot be written as ONNX, with all of it in the
            message, or the device target is Ascend. No file is written then.

    Supported Platforms:
        ``CPU`` ``GPU``

    Examples:
        >>> import tempfile
        >>> from mindspore import ops
        >>> from ms_deform import ModulatedDeformConv2dPack, export_onnx
        >>> net = ModulatedDeformConv2dPack(3, 4, 3, padding=1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = export_onnx(net, ops.ones((1, 3, 8, 8)), file_name=folder + "/net")
        >>> path.endswith("/net.onnx")
        True
    """
    check_inputs("export_onnx", inputs)
    try:
        import onnx
    except ImportError as error:
        raise ImportError(
            'export_onnx: needs the package onnx: pip install "onnx>=1.17,<2" "numpy>=1.25,<2"'
        ) from error
    if opset_version not in OPSETS:
        raise ValueError(
            f"export_onnx: 'opset_version' must be one of {', '.join(map(str, OPSETS))}, the "
            f"versions that define DeformConv, got {opset_version}"
        )
    device_target = get_current_device().device_target
    if device_target not in LIBRARY_TARGETS:
        raise RuntimeError(
            f"export_onnx: needs device target {' or '.join(LIBRARY_TARGETS)}, got "
            f'{device_target}; choose one first: mindspore.set_device("CPU")'
        )
    path = Path(file_name)
    path = path if path.suffix == ".onnx" else path.with_name(f"{path.name}.onnx")
    model = _model(net, inputs, opset_version, dynamic_axes or {})
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise RuntimeError(
            f"export_onnx: opset {opset_version} does not have this; take float32, or for bfloat16 "
            f"opset_version=22: {error}"
        ) from error
    _write(path, model.SerializeToString())
    return str(path)


def _model(
    net: nn.Cell,
    inputs: tuple[Tensor, ...],
    opset_version: int,
    dynamic_axes: Mapping[str, Mapping[int, str]],
) -> onnx.ModelProto:
    # These need the package onnx.
    from onnx import helper

    from ms_deform.export.free_sizes import FreeAxes, translate_for_all_sizes
    from ms_deform.export.translation import CannotTranslate, add_parameters, translate

    names = _input_names(net, len(inputs))
    free = FreeAxes(names, inputs, dynamic_axes)

    def translated(inputs: tuple[Tensor, ...]) -> Translation:
        return translate(trace(net, inputs), names, opset_version, bool(free.sizes))

    try:
        with inference(net), forced_backend(net, "aot"):
            translation = (
                translate_for_all_sizes(free, translated) if free.sizes else translated(inputs)
            )
        graph = add_parameters(translation, net.parameters_dict())
    except CannotTranslate as error:
        raise RuntimeError(
            f"export_onnx: the network cannot be written as ONNX:\n{error}"
        ) from None
    opset_imports = [helper.make_opsetid("", opset_version)]
    return helper.make_model(
        graph,
        opset_imports=opset_imports,
        ir_version=helper.find_min_ir_version_for(opset_imports),
        producer_name="ms_deform",
    )


def _input_names(net: nn.Cell, count: int) -> list[str]:
    """The names of construct's arguments, numbered where it takes any number of them."""
    names = []
    for parameter in inspect.signature(net.construct).parameters.values():
        if parameter.kind == parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}_{i}" for i in range(count - len(names))]
        else:
            names.append(parameter.name)
    return names[:count]


def _write(path: Path, content: bytes) -> None:
    """All of it or nothing: a file that is there stays until the new one is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        whole.write_bytes(content)
        whole.replace(path)
    finally:
        whole.unlink(missing_ok=True)
