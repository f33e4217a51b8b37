# SPDX-License-Identifier: Apache-2.0
"""Says what works on this machine, and the command that mends what does not."""

from __future__ import annotations

import math
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from ms_deform._version import __version__
from ms_deform.install import builder, cann, library
from ms_deform.install.aicpu_operators import FORWARD
from ms_deform.install.library import LIBRARY_TARGETS

# MindSpore and NumPy are imported where they are used only: the report must come out where they
# are missing or broken.
if TYPE_CHECKING:
    import numpy as np

# From the first version to the one before the last; as in setup.cfg.
SUPPORTED = {"mindspore": ("2.7", "2.11"), "numpy": ("1.25", "2")}
_PYTHONS = ((3, 9), (3, 12))

# The `weighted_sum` of each of torchvision 0.29.1's float64 answers to the self-test's `problem`.
STORED_ANSWER = {
    "output": 2.326614849,
    "grad_input": 7.739497099,
    "grad_offset": -1.668361258,
    "grad_mask": -3.912256356,
    "grad_weight": -0.2152916332,
    "grad_bias": 0.8941982928,
}
GEOMETRY = ((2, 1), (1, 2), (1, 2))  # stride, padding, dilation

_SELF_TEST_SECONDS = 300


def main() -> int:
    """Prints the whole report; returns 0 if the CPU works."""
    report_versions()
    _report_compiler()
    print("libraries")
    for target in builder.TARGETS:
        print(f"  {target:<10} {_describe_library(target)}")
    report_device_targets()
    return _report_self_test()


def problem() -> list[np.ndarray]:
    """The fixed problem: input, offset, mask, weight, bias and grad_output, float64."""
    import numpy as np

    shapes = [(2, 4, 5, 6), (2, 24, 3, 8), (2, 12, 3, 8), (6, 2, 3, 2), (6,), (2, 6, 3, 8)]
    return [
        np.sin((2 + position) * np.arange(1, 1 + math.prod(shape))).reshape(shape)
        for position, shape in enumerate(shapes)
    ]


def weighted_sum(values: np.ndarray) -> float:
    """One number that moves with every element of values and with their order."""
    import numpy as np

    return float(np.sum(values.ravel() * np.sin(np.arange(1, 1 + values.size))))


def self_test() -> None:
    """Runs the problem forward and backward, in both modes, against the stored answer."""
    import mindspore as ms
    import numpy as np

    from ms_deform import deform_conv2d

    def loss(
        input: ms.Tensor,
        offset: ms.Tensor,
        mask: ms.Tensor,
        weight: ms.Tensor,
        bias: ms.Tensor,
        grad_output: ms.Tensor,
    ) -> tuple[ms.Tensor, ms.Tensor]:
        output = deform_conv2d(input, offset, weight, bias, *GEOMETRY, mask)
        return (output * grad_output).sum(), output

    ms.set_device("CPU")
    tensors = [ms.Tensor(values.astype(np.float32)) for values in problem()]
    for mode in (ms.GRAPH_MODE, ms.PYNATIVE_MODE):
        ms.set_context(mode=mode)
        gradient = ms.value_and_grad(loss, (0, 1, 2, 3, 4), has_aux=True)
        (_, output), gradients = gradient(*tensors)
        answer = dict(zip(STORED_ANSWER, (output, *gradients)))
        for name, expected in STORED_ANSWER.items():
            got = weighted_sum(answer[name].asnumpy())
            # Written so that a NaN fails.
            if not abs(got - expected) <= 1e-4 * max(1.0, abs(expected)):
                raise ArithmeticError(f"{name}, mode {mode}: got {got}, expected {expected}")


def report_versions() -> None:
    low, high = _PYTHONS
    fits = low <= sys.version_info[:2] <= high
    wish = "ok" if fits else "use Python {}.{} to {}.{}".format(*low, *high)
    print(f"{'ms_deform':<12} {__version__:<10} {library.PACKAGE}")
    print(f"{'Python':<12} {platform.python_version():<10} {wish}")
    for package, (first, last) in SUPPORTED.items():
        mend = f'pip install "{package}>={first},<{last}"'
        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:
            print(f"{package:<12} {'missing':<10} {mend}")
            continue
        fits = _release(first) <= _release(version) < _release(last)
        print(f"{package:<12} {version:<10} {'ok' if fits else f'not supported: {mend}'}")


def report_device_targets() -> None:
    print("device targets")
    for device_target in LIBRARY_TARGETS:
        print(f"  {device_target:<10} {_describe_device_target(device_target)}")
    print(f"  {'Ascend':<10} " + f"\n{'':<13}".join(_describe_ascend()))


def _describe_ascend() -> list[str]:
    """The routes that calls would take, and why."""
    soc = _ascend_soc() if cann.opp_path() else ""
    why_not = cann.aclnn_obstacle(soc)
    package = cann.aicpu_package(FORWARD.name)
    return [
        "training, PyNative, jit level O2: the composition of MindSpore's own operators",
        "inference in graph mode, O0 and O1: "
        + (f"aclnnDeformableConv2d, on {soc}" if why_not is None else f"composition: {why_not}"),
        'set_backend("aicpu"): '
        + (
            f"the kernels in {package}"
            if package
            else "no vendor package is installed: python -m ms_deform build --aicpu, then "
            "python -m ms_deform install-aicpu"
        ),
    ]


# In a process of its own, as the self-test.
_SOC_PROGRAM = """
import mindspore
from mindspore._c_expression import MSContext
mindspore.set_device("Ascend")
print(MSContext.get_instance().get_ascend_soc_version())
"""


def _ascend_soc() -> str:
    """The name of the device's SoC, such as Ascend910B4; empty where MindSpore sees none."""
    command = [sys.executable, "-c", _SOC_PROGRAM]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SELF_TEST_SECONDS)
    except subprocess.TimeoutExpired:
        return ""
    return "" if done.returncode else done.stdout.strip().rpartition("\n")[2]


def _report_compiler() -> None:
    try:
        print(f"{'compiler':<12} {builder.compiler_version()}")
    except builder.BuildError as error:
        print(f"{'compiler':<12} only to build libraries: {error}")
    try:
        major, minor = builder.nvcc_version()
        print(f"{'nvcc':<12} {major}.{minor:<8} {shlex.join(builder.find_nvcc())}")
    except builder.BuildError as error:
        print(f"{'nvcc':<12} only for GPUs: {error}")


def _describe_library(target: str) -> str:
    try:
        path = library.find_library(target)
        info = library.read_info(path)
        isas = ", ".join(info.isas)
        return (
            f"{path}\n{'':<12} version {info.version}, ABI {info.abi}, built for {isas}; "
            f"in use here: {library.loaded_isa(target)}"
        )
    except library.LibraryError as error:
        return str(error)


def _describe_device_target(device_target: str) -> str:
    try:
        path = library.find_library(LIBRARY_TARGETS[device_target])
    except library.LibraryError as error:
        return f"not usable: {error}"
    return _gpu_complaint(device_target) or _white_list_complaint(path) or "usable"


def _gpu_complaint(device_target: str) -> str | None:
    if device_target != "GPU":
        return None
    architecture = library.loaded_isa("cuda")
    return None if architecture.startswith("sm_") else f"not usable: {architecture}"


def _white_list_complaint(path: Path) -> str | None:
    """MindSpore runs only libraries below MS_CUSTOM_AOT_WHITE_LIST, where that is set."""
    allowed = os.environ.get("MS_CUSTOM_AOT_WHITE_LIST")
    if allowed is None or Path(allowed).resolve() in path.parents:
        return None
    return (
        f"not usable: MS_CUSTOM_AOT_WHITE_LIST={allowed} keeps MindSpore from {path}; "
        f"unset MS_CUSTOM_AOT_WHITE_LIST, or export MS_CUSTOM_AOT_WHITE_LIST={path.parent}"
    )


def _report_self_test() -> int:
    start = time.perf_counter()
    # In a process of its own: a broken MindSpore may end the process that imports it.
    command = [sys.executable, "-c", "from ms_deform.doctor import self_test; self_test()"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SELF_TEST_SECONDS)
    except subprocess.TimeoutExpired:
        print(f"self-test    FAILED: no answer in {_SELF_TEST_SECONDS} s")
        return 1
    if done.returncode:
        print(f"self-test    FAILED (exit status {done.returncode})\n{done.stderr.strip()}")
        return 1
    print(
        "self-test    ok: forward and every gradient on the CPU, graph mode and PyNative "
        f"({time.perf_counter() - start:.1f} s with the import of MindSpore)"
    )
    return 0


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
