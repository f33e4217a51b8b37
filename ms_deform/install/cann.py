# SPDX-License-Identifier: Apache-2.0
"""What of CANN, Ascend's software, is installed here. Needs neither MindSpore nor a device."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

from ms_deform.install import vendors
from ms_deform.install.ai_core import CONVOLUTION, CONVOLUTION_GRAD, PRODUCTS, product_of

_ACLNN_HEADER = "include/aclnnop/aclnn_deformable_conv2d.h"
# It declares aclnnConvolutionBackward in every CANN; since ops-nn v9.1.0 this function too.
_ACLNN_BACKWARD_HEADER = "include/aclnnop/aclnn_convolution_backward.h"
# Where CANN looks for the operators of an AICPU vendor package.
AICPU_CONFIG = "op_impl/cpu/config/cust_aicpu_kernel.json"


def opp_path() -> Path | None:
    """The folder of CANN's operators, from ASCEND_OPP_PATH as CANN's set_env.sh sets it."""
    path = os.environ.get("ASCEND_OPP_PATH")
    return Path(path) if path and Path(path).is_dir() else None


def version() -> str | None:
    """The name of CANN's release, from the version.info of its operators; None without CANN."""
    opp = opp_path()
    if opp is None:
        return None
    info = opp / "version.info"
    lines = info.read_text("utf-8").splitlines() if info.is_file() else []
    # "Version" is the number of the package, "version_dir" the release that it came with.
    releases = [line.partition("=")[2] for line in lines if line.startswith("version_dir=")]
    return f"CANN {releases[0]}" if releases else f"the CANN at {opp.parent}"


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
    return _not_of_product(CONVOLUTION, soc)


def aclnn_backward_obstacle(soc: str) -> str | None:
    """Why aclnnDeformableConv2dBackward cannot be used, likewise."""
    why_not = _not_of_product(CONVOLUTION_GRAD, soc) or aclnn_obstacle(soc)
    if why_not is not None:
        return why_not
    header = opp_path().parent / _ACLNN_BACKWARD_HEADER
    if not _declares(header, CONVOLUTION_GRAD):
        return f"no {CONVOLUTION_GRAD} in {header}; install CANN 9.1 or later with its headers"
    return None


def _not_of_product(function: str, soc: str) -> str | None:
    product = product_of(soc)
    if product is not None and function in product.functions:
        return None
    names = ", ".join(product.name for product in PRODUCTS if function in product.functions)
    return f"{function} is for {names}, this is {soc or 'no Ascend device'}"


# Asked for by every call of a layer that is being trained.
@cache
def _declares(header: Path, function: str) -> bool:
    return header.is_file() and f"{function}GetWorkspaceSize(" in header.read_text("utf-8")


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
