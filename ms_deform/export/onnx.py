# SPDX-License-Identifier: Apache-2.0
"""ONNX files with the standard ``DeformConv`` operator.

MindSpore writes a custom operator as a node of the name that it is registered under, without
attributes. For an export the forward operator is therefore registered under names that hold them;
the nodes are then rewritten.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import mindspore as ms
from mindspore import Tensor, get_current_device, nn, ops

from ms_deform.backends import aot, forced_backend
from ms_deform.backends.interface import Call
from ms_deform.geometry import Geometry
from ms_deform.hints import check_inputs
from ms_deform.install.library import LIBRARY_TARGETS

if TYPE_CHECKING:
    import onnx

OPSETS = (19, 22)  # those that define DeformConv
_PREFIX = "MsDeformForward"
# While the other nodes are brought to the new opset, these must not be taken for standard ones.
_DOMAIN = "ms_deform"


class _DeformConv(NamedTuple):
    """The attributes of ONNX's operator, and which of its optional inputs are there."""

    strides: tuple[int, int]
    pads: tuple[int, int, int, int]  # top, left, bottom, right
    dilations: tuple[int, int]
    kernel_shape: tuple[int, int]
    group: int
    offset_group: int
    use_mask: bool
    use_bias: bool


def operator_name(geometry: Geometry) -> str:
    """The name for the forward operator of a call, from which its node is made."""
    attributes = geometry.attributes
    top, bottom, left, right = attributes.padding
    numbers = (
        *attributes.stride,
        *(top, left, bottom, right),
        *attributes.dilation,
        *geometry.kernel_size,
        geometry.groups,
        geometry.offset_groups,
        int(attributes.use_mask),
        int(attributes.use_bias),
    )
    return "_".join(map(str, (_PREFIX, *numbers)))


class _StandIns:
    """The backend of an export: the operator of "aot", under names that hold the geometry."""

    obstacle = staticmethod(aot.obstacle)

    @staticmethod
    def prepare(call: Call) -> tuple[ops.Custom, Tensor]:
        return aot.prepare(call, operator_name(call.geometry))

    run = staticmethod(aot.run)


def export_onnx(
    net: nn.Cell, *inputs: Tensor, file_name: str | Path, opset_version: int = 19
) -> str:
    """
    Writes a network as an ONNX file whose deformable layers are the standard ``DeformConv``.

    Needs the package onnx: ``pip install "onnx>=1.17,<2" "numpy>=1.25,<2"``. What else the network
    holds must be among the operators that ``mindspore.export`` knows for ONNX. onnxruntime runs
    ``DeformConv`` from version 1.25 on.

    Args:
        net (Cell): The network. It is exported as for inference.
        inputs (Tensor): Inputs of the shapes that the file is to take.
        file_name (Union[str, Path]): The file; ".onnx" is added where it is missing.
        opset_version (int, optional): 19 or 22, the versions of ONNX's operators that define
            ``DeformConv``. Default: ``19`` .

    Returns:
        str, the path of the file.

    Raises:
        ImportError: If the package onnx is missing.
        TypeError: If an input is not a Tensor.
        ValueError: If `opset_version` is neither 19 nor 22.
        RuntimeError: If the network holds an operator that ONNX does not have, or the device target
            is Ascend.

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
    with forced_backend(net, _StandIns):
        ms.export(net, *inputs, file_name=str(path), file_format="ONNX")
    written = onnx.load(str(path))
    path.unlink()  # until it is a standard one
    model = _standard(written, opset_version)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
    return str(path)


def _standard(model: onnx.ModelProto, opset_version: int) -> onnx.ModelProto:
    """The model in the wanted opset, with DeformConv for the stand-ins."""
    from onnx import helper, version_converter

    stand_ins = [node for node in model.graph.node if node.op_type.startswith(f"{_PREFIX}_")]
    for node in stand_ins:
        node.domain = _DOMAIN
    if stand_ins:
        model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    try:
        model = version_converter.convert_version(model, opset_version)
    except RuntimeError as error:
        raise RuntimeError(f"export_onnx: the network cannot be written as ONNX: {error}") from None
    for position, node in enumerate(model.graph.node):
        if node.op_type in ("Conv", "ConvTranspose"):
            _mend_convolution(node)
        if node.domain == _DOMAIN:
            model.graph.node[position].CopyFrom(_deform_conv(node))
    used = {name for node in model.graph.node for name in node.input}
    for initializer in [item for item in model.graph.initializer if item.name not in used]:
        model.graph.initializer.remove(initializer)  # what stood for an absent mask or bias
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", opset_version))
    model.ir_version = max(
        model.ir_version, helper.find_min_ir_version_for(list(model.opset_import))
    )
    return model


def _deform_conv(stand_in: onnx.NodeProto) -> onnx.NodeProto:
    """The standard node; both offsets are [N, offset group, tap, (y, x)], and both masks alike."""
    from onnx import helper

    call = _read_name(stand_in.op_type)
    input, offset, mask, weight, bias = stand_in.input
    inputs = [input, weight, offset, bias if call.use_bias else "", mask if call.use_mask else ""]
    while not inputs[-1]:
        inputs.pop()
    attributes = call._asdict()
    del attributes["use_mask"], attributes["use_bias"]
    return helper.make_node(
        "DeformConv", inputs, list(stand_in.output), stand_in.name, **attributes
    )


def _mend_convolution(node: onnx.NodeProto) -> None:
    """Sets right what MindSpore, 2.7 to 2.10, writes in another form than ONNX reads.

    Its pads are top, bottom, left, right, where ONNX has all begins first. Its output_shape has all
    four dimensions, where ONNX has height and width; with it ONNX reads no pads and shares them
    evenly, so that it must go where they differ.
    """
    attributes = {attribute.name: attribute for attribute in node.attribute}
    symmetric = True
    if "pads" in attributes:
        top, bottom, left, right = attributes["pads"].ints
        attributes["pads"].ints[:] = (top, left, bottom, right)
        symmetric = (top, left) == (bottom, right)
    if "output_shape" in attributes:
        if symmetric:
            attributes["output_shape"].ints[:] = attributes["output_shape"].ints[2:]
        else:
            node.attribute.remove(attributes["output_shape"])


def _read_name(name: str) -> _DeformConv:
    numbers = [int(number) for number in name.split("_")[1:]]
    return _DeformConv(
        strides=tuple(numbers[0:2]),
        pads=tuple(numbers[2:6]),
        dilations=tuple(numbers[6:8]),
        kernel_shape=tuple(numbers[8:10]),
        group=numbers[10],
        offset_group=numbers[11],
        use_mask=bool(numbers[12]),
        use_bias=bool(numbers[13]),
    )
