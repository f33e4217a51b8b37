# SPDX-License-Identifier: Apache-2.0
"""MindSpore gives torchvision 0.29.1's recorded answers, output and every gradient.

No torch needed; test_kernel_answers.py holds every library of kernels against them.
"""

from __future__ import annotations

import pytest

import operator_under_test
import recorded
from tolerances import assert_close, assert_gradients_close

pytestmark = pytest.mark.usefixtures("device", "mode")


@pytest.mark.parametrize("dtype, tolerance", recorded.TOLERANCES.items())
@pytest.mark.parametrize("case", ["torchvision_own", "neither_mask_nor_bias"])
def test_the_answer_is_torchvisions(case: str, dtype: str, tolerance: float) -> None:
    call, grad_output, output, gradients = recorded.CASES[case]
    actual, actual_gradients = operator_under_test.gradients(call, grad_output, dtype)
    assert_close(actual, output, dtype, "output", tolerance)
    assert_gradients_close(actual_gradients, gradients, dtype, tolerance)
