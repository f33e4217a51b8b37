# SPDX-License-Identifier: Apache-2.0
"""Gradients against central differences of the forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from reference import Gradients


def away_from_kinks(offset: np.ndarray) -> np.ndarray:
    """The offsets with fractions in [1/8, 7/8]: within a step the output is smooth."""
    whole = np.floor(offset)
    return whole + 1 / 8 + (offset - whole) * 3 / 4


def assert_gradients_match_differences(
    forward: Callable[[dict[str, Any]], np.ndarray],
    gradients: Callable[[dict[str, Any]], Gradients],
    call: dict[str, Any],
    grad_output: np.ndarray,
    step: float = 1e-5,
) -> None:
    """For each array, along a random direction v:

    (loss(array + step v) - loss(array - step v)) / (2 step) = sum(gradient * v), to O(step^2).
    """
    call = {**call, "offset": away_from_kinks(call["offset"])}
    rng = np.random.default_rng(7)
    actual = gradients(call)
    for name in Gradients._fields:
        if name not in call:
            continue
        direction = rng.uniform(-1, 1, call[name].shape)
        up, down = (
            np.sum(grad_output * forward({**call, name: call[name] + sign * step * direction}))
            for sign in (1, -1)
        )
        difference = (up - down) / (2 * step)
        gradient = getattr(actual, name)
        scale = np.linalg.norm(gradient) + 1
        error = abs(np.sum(gradient * direction) - difference)
        assert error <= 1e-6 * scale, f"{name}: off by {error:.2e} at a scale of {scale:.2e}"
