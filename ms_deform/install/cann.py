# SPDX-License-Identifier: Apache-2.0
"""What of CANN, Ascend's software, is installed here. Needs neither MindSpore nor a device."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ms_deform.install import vendors

# SoC names, as MindSpore gives them, of the products with aclnnDeformableConv2d: Atlas A2, A3, 950.
ACLNN_SOCS = ("ascend910b", "ascend910_93", "ascend950", "ascend910_95")
_ACLNN_HEADER = "include/aclnnop/aclnn_deformable_conv2d.h"
# Where CANN looks for the operators of an AICPU vendor package.
AICPU_CONFIG = "op_impl/cpu/config/cust_aicpu_kernel.json"


def opp_path() -> Path | None:
    """The folder of CANN's operators, from ASCEND_OPP_PATH as CANN's set_env.sh sets it."""
    path = os.environ.get("ASCEND_OPP_PATH")
    return Path(path) if path and Path(path).is_dir() else None


def aclnn_obstacle(soc: str) -> str | None:
    """Why aclnnDeformableConv2d cannot be used with this CANN and on this SoC; None if it can."""
    opp = opp_path()
    if opp is None:
        return (
            "ASCEND_OPP_PATH names no folder; source CANN's set_env.sh "
            "(usually /usr/local/Ascend/ascend-toolkit/set_env.sh)"
        )
    if not (opp.parent / _ACLNN_HEADER).is_file():
        return (
            f"the CANN at {opp.parent} has no {_ACLNN_HEADER}; install CANN 8.5 or later with its "
            "headers (toolkit)"
        )
    if not soc.lower().startswith(ACLNN_SOCS):
        return (
            f"aclnnDeformableConv2d is for Atlas A2, A3 and 950 "
            f"({', '.join(ACLNN_SOCS)}), this is {soc or 'no Ascend device'}"
        )
    return None


def vendors_path() -> Path | None:
    """The folder of CANN in which vendors' packages of operators lie."""
    opp = opp_path()
    return None if opp is None else opp / "vendors"


def custom_packages() -> list[Path]:
    """The packages of operators that ASCEND_CUSTOM_OPP_PATH names."""
    return [Path(path) for path in os.environ.get("ASCEND_CUSTOM_OPP_PATH", "").split(":") if path]


def aicpu_package(operator: str) -> Path | None:
    """The installed vendor package that has the AICPU operator, of those that CANN reads."""
    packages = custom_packages()
    installed = vendors_path()
    if installed is not None:
        packages += [installed / name for name in vendors.listed(installed / vendors.CONFIG)]
    for package in packages:
        config = package / AICPU_CONFIG
        if config.is_file() and operator in json.loads(config.read_text()):
            return package
    return None
