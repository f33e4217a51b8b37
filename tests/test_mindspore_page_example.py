# SPDX-License-Identifier: Apache-2.0
"""The example on MindSpore's page on its own and torchvision's deformable convolution."""

from __future__ import annotations

import numpy as np
import pytest

import operator_under_test

pytestmark = pytest.mark.usefixtures("device", "mode")


def test_the_example_gives_the_answer_of_the_page() -> None:
    rng = np.random.RandomState(1)
    image = rng.randn(1, 64, 1, 2)
    weight = rng.randn(1, 64, 1, 1)
    offsets_x, offsets_y, mask = (rng.randn(1, 1, 1, 1, 1, 1, 2) for _ in range(3))
    call = {
        "input": image,
        "offset": np.stack([offsets_y, offsets_x]).reshape(1, 2, 1, 2),
        "weight": weight,
        "mask": mask.reshape(1, 1, 1, 2),
    }
    actual = operator_under_test.forward(call, "float32")
    np.testing.assert_allclose(actual, [[[[-0.00220442, 0.0]]]], rtol=1e-5, atol=0)
