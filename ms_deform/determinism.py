# SPDX-License-Identifier: Apache-2.0
"""Whether gradients have the same bits in every run."""

from __future__ import annotations

from mindspore._c_expression import MSContext, ms_ctx_param

_asked = False
# mindspore.get_context says the same thirty times slower, and every call asks.
_context = MSContext.get_instance()


def set_deterministic(deterministic: bool) -> None:
    """
    Makes gradients the same to the last bit in every run, on devices where the fastest way is not.

    On a CPU they always are. On a GPU the gradient of the input is summed up by atomic additions,
    whose order changes from run to run; a deterministic sum takes more time, and the whole gradient
    of the input is NaN if grad_output, mask or weight holds a value that is not finite.

    Note:
        - Calls take what holds when they are traced: set it before a graph is compiled.
        - MindSpore's own ``set_context(deterministic="ON")`` asks for the same.

    Args:
        deterministic (bool): Whether the bits must be the same.

    Raises:
        TypeError: If `deterministic` is not a bool.

    Supported Platforms:
        ``CPU`` ``GPU``

    Examples:
        >>> import ms_deform
        >>> ms_deform.set_deterministic(True)
        >>> ms_deform.set_deterministic(False)
    """
    global _asked
    if not isinstance(deterministic, bool):
        raise TypeError(f"set_deterministic: 'deterministic' must be a bool, got {deterministic!r}")
    _asked = deterministic


def is_deterministic() -> bool:
    """Whether calls that are traced now are to be deterministic."""
    return _asked or _context.get_param(ms_ctx_param.deterministic) == "ON"
