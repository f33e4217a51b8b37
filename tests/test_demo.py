# SPDX-License-Identifier: Apache-2.0
"""The demo, shortened: it trains both networks and leaves a checkpoint and a picture."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

DEMO = Path(__file__).parents[1] / "scripts" / "demo.py"

pytestmark = pytest.mark.needs("sklearn", "matplotlib", "tqdm")


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory):
    """The folder the demo wrote to, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    run = subprocess.run(
        [sys.executable, str(DEMO), "--quick", "--output", str(folder)],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return folder, run.stdout


@pytest.mark.parametrize("network", ["plain", "deformable"])
def test_train_loss_falls(demo_run, network):
    _, printed = demo_run
    row = re.search(rf"^{network} +\d+ +([\d.]+) -> ([\d.]+) ", printed, re.MULTILINE)
    assert row, printed
    first, last = map(float, row.groups())
    assert last < first


def test_checkpoint_holds_trained_offsets(demo_run):
    folder, _ = demo_run
    parameters = ms.load_checkpoint(str(folder / "deformable.ckpt"))
    assert all(np.isfinite(parameter.asnumpy()).all() for parameter in parameters.values())
    for layer in ("middle", "top"):
        # They start at zero.
        assert np.any(parameters[f"{layer}.0.offset_and_mask.weight"].asnumpy())
        assert f"{layer}.0.deform.weight" in parameters


def test_picture_is_readable(demo_run):
    from matplotlib.image import imread

    folder, _ = demo_run
    height, width, _ = imread(folder / "sampling.png").shape
    assert width == 1200
    assert height > 400
