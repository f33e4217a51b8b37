# SPDX-License-Identifier: Apache-2.0
"""A folder that looks like an installed CANN, as far as the aclnn route looks at one."""

from __future__ import annotations

from pathlib import Path

from ms_deform.install.ai_core import CONVOLUTION_GRAD

# aclnnDeformableConv2d, from CANN 8.5 on.
HEADER = "include/aclnnop/aclnn_deformable_conv2d.h"
# aclnnConvolutionBackward, in every CANN, and aclnnDeformableConv2dBackward from CANN 9.1 on.
BACKWARD_HEADER = "include/aclnnop/aclnn_convolution_backward.h"


def make_toolkit(root: Path, version: str) -> None:
    """The one of CANN 8.5 or 9.1; ASCEND_OPP_PATH is its folder ``opp``."""
    declared = "aclnnConvolutionBackwardGetWorkspaceSize();\n"
    if version == "9.1":
        declared += f"{CONVOLUTION_GRAD}GetWorkspaceSize();\n"
    for header, text in ((HEADER, ""), (BACKWARD_HEADER, declared)):
        path = root / header
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "opp").mkdir()
