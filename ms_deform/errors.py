# SPDX-License-Identifier: Apache-2.0
"""Why something failed."""

from __future__ import annotations

import ctypes

from mindspore import get_current_device

from ms_deform.install.library import LIBRARY_TARGETS, library_function


def last_error() -> str | None:
    """
    The reason of the last failure of this project's kernels in this process, on the device in use.

    On a GPU, MindSpore raises "Launch kernel failed" whatever the reason, which it writes to its
    log only. What a GPU finds while it runs a kernel, such as an illegal address, CUDA reports
    later, to whoever calls it next.

    Returns:
        str, the reason, or None if no kernel has failed, or the device has none that tell (Ascend).

    Raises:
        RuntimeError: If the library is missing, damaged, or built for another version.

    Supported Platforms:
        ``CPU`` ``GPU``

    Examples:
        >>> from mindspore import ops
        >>> import ms_deform
        >>> input, offset = ops.ones((1, 1, 3, 3)), ops.zeros((1, 18, 3, 3))
        >>> output = ms_deform.deform_conv2d(input, offset, ops.ones((1, 1, 3, 3)), padding=1)
        >>> try:
        ...     print(output.sum())
        ... except RuntimeError:
        ...     print(ms_deform.last_error())
        49.0
    """
    target = LIBRARY_TARGETS.get(get_current_device().device_target)
    if target is None:
        return None
    return library_function(target, "last_error", ctypes.c_char_p)().decode() or None


def first_line(error: BaseException) -> str:
    """The first line of an exception's message that says something."""
    return next((line for line in str(error).splitlines() if line.strip(" -")), "no message")
