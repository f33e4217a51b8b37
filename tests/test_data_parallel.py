# SPDX-License-Identifier: Apache-2.0
"""Two workers that share each batch end with the weights of one that takes it whole."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

import readme
from test_demo import pytestmark  # noqa: F401 the same extra is needed

(README,) = readme.shell_blocks("test_data_parallel")
(COMMAND,) = README.lines()
SCRIPT = "scripts/train_parallel.py"
BIN = Path(sys.executable).parent


def train(folder: Path, name: str, command: str) -> dict[str, np.ndarray]:
    """The weights that the script ends with."""
    done = subprocess.run(
        ["bash", "-c", f"{command} --output {folder / name}.ckpt"],
        cwd=folder,
        # msrun starts the first python on the PATH.
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    logs = "".join(log.read_text()[-2000:] for log in folder.glob("logs/*.log"))
    assert done.returncode == 0, done.stderr + logs
    checkpoint = ms.load_checkpoint(str(folder / f"{name}.ckpt"))
    return {key: parameter.asnumpy() for key, parameter in checkpoint.items()}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


@pytest.mark.long
def test_two_workers_end_with_the_weights_of_one(tmp_path):
    if shutil.which("msrun", path=BIN) is None:
        pytest.skip(f"MindSpore's launcher msrun is not in {BIN}")
    # As the README has it, but for files and a port of this test's own.
    (tmp_path / "scripts").symlink_to(readme.ROOT / "scripts")
    launcher = f"msrun --log_dir={tmp_path / 'logs'} --master_port={free_port()} "
    two = train(tmp_path, "two", COMMAND.replace("msrun ", launcher))
    one = train(tmp_path, "one", f"python {COMMAND[COMMAND.index(SCRIPT) :]}")
    before = train(tmp_path, "before", f"python {SCRIPT} --steps 1")
    assert one.keys() == two.keys()
    for name, weight in one.items():
        np.testing.assert_allclose(two[name], weight, rtol=0, atol=1e-5)
    for name in ("middle.0.deform.weight", "middle.0.offset_and_mask.weight"):
        assert np.abs(one[name] - before[name]).max() > 1e-3
