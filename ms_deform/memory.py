# SPDX-License-Identifier: Apache-2.0
"""The working memory that the kernels keep."""

from __future__ import annotations

import ctypes

from ms_deform.install.library import library_function, library_path


def scratch_bytes() -> int:
    """The bytes of working memory that the kernels hold, in use or kept for the next call.

    It is kept because fresh memory costs more than a small call, and is as large as the largest
    call so far needed, once for each call that ran at the same time.

    Returns:
        int, the number of bytes.

    Raises:
        RuntimeError: If the library is missing, damaged, or built for another version.

    Supported Platforms:
        ``CPU`` ``GPU``

    Examples:
        >>> from mindspore import ops
        >>> import ms_deform
        >>> input, offset = ops.ones((1, 1, 3, 3)), ops.zeros((1, 18, 3, 3))
        >>> output = ms_deform.deform_conv2d(input, offset, ops.ones((1, 1, 3, 3)), padding=1)
        >>> print(output.sum())
        49.0
        >>> ms_deform.scratch_bytes() > 0
        True
    """
    return sum(
        library_function(target, "scratch_bytes", ctypes.c_int64)() for target in _targets_in_use()
    )


def release_scratch() -> None:
    """Gives the kernels' working memory back to the system, but for that of calls in progress.

    Raises:
        RuntimeError: If the library is missing, damaged, or built for another version.

    Supported Platforms:
        ``CPU`` ``GPU``

    Examples:
        >>> import ms_deform
        >>> ms_deform.release_scratch()
        >>> ms_deform.scratch_bytes()
        0
    """
    for target in _targets_in_use():
        library_function(target, "release_scratch", None)()


def _targets_in_use() -> list[str]:
    """The CPU's library is a part of the package, that for GPUs is built by who has one."""
    return ["cpu", *(["cuda"] if library_path("cuda").exists() else [])]
