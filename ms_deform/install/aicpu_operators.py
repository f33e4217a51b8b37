# SPDX-License-Identifier: Apache-2.0
"""The table of AICPU operators: CANN's kernel list and MindSpore's registration are made from it.

Their kernels, in ``aot_kernels/aicpu``, have the same names. Needs no MindSpore.
"""

from __future__ import annotations

from typing import NamedTuple

LIBRARY = "libms_deform_aicpu.so"


class Operator(NamedTuple):
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


# Neither may be left out: an absent mask or bias is a placeholder of one element. Through MindSpore
# no attributes arrive, so that `geometry` is a tensor: stride, padding (top, bottom, left, right),
# dilation, use_mask, use_bias.
GEOMETRY = "geometry"
_GRADIENT_INPUTS = ("input", "offset", "mask", "weight", "grad_output", GEOMETRY)
FORWARD = Operator(
    "MsDeformAicpuForward", ("input", "offset", "mask", "weight", "bias", GEOMETRY), ("output",)
)
GRAD_INPUT = Operator(
    "MsDeformAicpuGradInput", _GRADIENT_INPUTS, ("grad_input", "grad_offset", "grad_mask")
)
GRAD_WEIGHT = Operator("MsDeformAicpuGradWeight", _GRADIENT_INPUTS, ("grad_weight",))
OPERATORS = (FORWARD, GRAD_INPUT, GRAD_WEIGHT)


def kernel_list() -> dict[str, object]:
    """The content of cust_aicpu_kernel.json; all of its values are strings."""
    return {operator.name: _kernel(operator) for operator in OPERATORS}


def _kernel(operator: Operator) -> dict[str, dict[str, str]]:
    tensors = {f"input{i}": _tensor(name) for i, name in enumerate(operator.inputs)}
    tensors.update({f"output{i}": _tensor(name) for i, name in enumerate(operator.outputs)})
    info = {
        "computeCost": "100",
        "engine": "DNN_VM_AICPU",
        "flagAsync": "False",
        "flagPartial": "False",
        "formatAgnostic": "False",
        "functionName": "RunCpuKernel",
        "kernelSo": LIBRARY,
        "opKernelLib": "CUSTAICPUKernel",
        "opsFlag": "OPS_FLAG_CLOSE",
        "subTypeOfInferShape": "1",
        "userDefined": "True",
        # KB, for what a kernel logs; CANN takes no more, and warns (hicann/ge at ffdcbc9f,
        # compiler/engines/cpu_engine/common/config/ops_json_file.cc).
        "workspaceSize": "500",
    }
    return {"opInfo": info, **tensors}


def _tensor(name: str) -> dict[str, str]:
    kind = "DT_INT64" if name == GEOMETRY else "DT_FLOAT,DT_FLOAT16"
    return {"name": name, "type": kind, "format": "ND", "paramType": "required"}
