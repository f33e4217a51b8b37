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
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from ms_deform import ascend_report
from ms_deform._version import __version__
from ms_deform.ascend_report import Layer
from ms_deform.install import ai_core, builder, cann, library, mindspore_gpu
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

_INDENTED = f"\n{'':<13}"  # a line below what is told of a device target
_SECONDS = 300  # for a process of MindSpore


def main() -> int:
    """Prints the whole report; returns 0 if the CPU works."""
    report_versions()
    _report_compiler()
    print("libraries")
    for target in builder.TARGETS:
        print(f"  {target:<10} {_describe_library(target)}")
    return 0 if "CPU" in _report_device_targets() else 1


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


def self_test(device_target: str) -> None:
    """Runs the problem forward and backward, in both modes, against the stored answer."""
    import mindspore as ms

    from ms_deform import last_error

    ms.set_device(device_target)
    try:
        for mode in (ms.GRAPH_MODE, ms.PYNATIVE_MODE):
            ms.set_context(mode=mode)
            _compare_with_stored_answer()
    except RuntimeError as error:
        # On a GPU it does not say why.
        raise RuntimeError(last_error() or str(error).strip()) from error


def _compare_with_stored_answer() -> None:
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

    tensors = [ms.Tensor(values.astype(np.float32)) for values in problem()]
    gradient = ms.value_and_grad(loss, (0, 1, 2, 3, 4), has_aux=True)
    (_, output), gradients = gradient(*tensors)
    answer = dict(zip(STORED_ANSWER, (output, *gradients)))
    for name, expected in STORED_ANSWER.items():
        got = weighted_sum(answer[name].asnumpy())
        # Written so that a NaN fails.
        if not abs(got - expected) <= 1e-4 * max(1.0, abs(expected)):
            raise ArithmeticError(f"{name}: got {got}, expected {expected}")


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


def _report_device_targets() -> list[str]:
    """Prints what is usable, and returns that, Ascend aside."""
    print("device targets")
    usable = []
    for device_target in LIBRARY_TARGETS:
        why_not = complaint(device_target)
        verdict = f"not usable: {why_not}"
        if why_not is None:
            usable.append(device_target)
            verdict = "usable: forward and every gradient are right, in graph mode and PyNative"
        print(f"  {device_target:<10} {verdict}")
    soc = _ascend_soc() if cann.opp_path() else ""
    print(f"  {'Ascend':<10} " + _INDENTED.join(ascend_report.describe_device(soc)))
    return usable


def report_ascend(soc: str | None, layer: Layer | None) -> int:
    """Prints what an Ascend device would take, and a layer there; returns 1 if that cannot be told.

    soc: the name of its SoC; None: the device's here.
    """
    soc = _ascend_soc() if soc is None else soc
    print("Ascend\n  " + "\n  ".join(ascend_report.describe_device(soc)))
    if layer is None:
        return 0
    product = ai_core.product_of(soc)
    if product is None:
        print(f"doctor: --layer needs a product, got {soc!r}; --soc Ascend910B4", file=sys.stderr)
        return 1
    try:
        told = list(ascend_report.describe_layer(layer, product))
    except ValueError as error:
        print(f"doctor: {error}", file=sys.stderr)
        return 1
    print("layer\n  " + "\n  ".join(told))
    return 0


_SOC_PROGRAM = """
import mindspore
from mindspore._c_expression import MSContext
mindspore.set_device("Ascend")
print(MSContext.get_instance().get_ascend_soc_version())
"""
_START_PROGRAM = """
import mindspore
mindspore.set_device("GPU")
mindspore.ops.ones((1,), mindspore.float32).asnumpy()
"""
_SELF_TEST_PROGRAM = """
import sys
from ms_deform.doctor import self_test
self_test(sys.argv[1])
"""


def _run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: a broken MindSpore may end the process that imports it."""
    command = [sys.executable, "-c", program, *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer in {_SECONDS} s")


def _failure(done: subprocess.CompletedProcess[str]) -> str:
    """What a program that failed says: first of all its exception, without the call stack."""
    raised = [*re.finditer(r"^[\w.]*(?:Error|Exception): ", done.stderr, re.MULTILINE)]
    reason = f"exit status {done.returncode}"
    if raised:
        text = done.stderr[raised[-1].end() :].partition("- C++ Call Stack")[0]
        # MindSpore rules its messages with dashes, and its log begins lines with a bracket.
        reason = " ".join(re.findall(r"^(?!-+$|\[)(?:- )?(.+)", text, re.MULTILINE))
    return f"{reason}\n{done.stderr.strip()}"


def _ascend_soc() -> str:
    """The name of the device's SoC, such as Ascend910B4; empty where MindSpore sees none."""
    done = _run(_SOC_PROGRAM)
    return "" if done.returncode else done.stdout.strip().rpartition("\n")[2]


def _report_compiler() -> None:
    try:
        print(f"{'compiler':<12} {builder.compiler_version()}")
    except builder.BuildError as error:
        print(f"{'compiler':<12} only to build libraries: {error}")
    try:
        major, minor = builder.nvcc_version()
        command = shlex.join(builder.find_nvcc())
        print(f"{'nvcc':<12} {f'{major}.{minor}':<10} {command}, for build --cuda")
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


def complaint(device_target: str) -> str | None:
    """Why the kernels cannot be used on a device target, and what mends it; None if they can."""
    try:
        path = library.find_library(LIBRARY_TARGETS[device_target])
    except library.LibraryError as error:
        return str(error)
    found = _white_list_complaint(path)
    if found is None and device_target == "GPU":
        found = _gpu_complaint()
    return found or _self_test_complaint(device_target)


def _gpu_complaint() -> str | None:
    architecture = library.loaded_isa("cuda")
    if not architecture.startswith("sm_"):
        return (
            f"{architecture}; nvidia-smi must list a GPU, and a CUDA version of the "
            "same major release as the nvcc that built the library, or of a later one"
        )
    started = _run(_START_PROGRAM)
    if started.returncode == 0:
        return None
    reasons, commands = mindspore_gpu.obstacles()
    told = f"MindSpore does not start it: {'; '.join(reasons) or _failure(started)}"
    if commands:
        told += f"{_INDENTED}in the shell that starts Python:"
    return _INDENTED.join([told, *commands])


def _self_test_complaint(device_target: str) -> str | None:
    done = _run(_SELF_TEST_PROGRAM, device_target)
    return f"the self-test fails: {_failure(done)}" if done.returncode else None


def _white_list_complaint(path: Path) -> str | None:
    """MindSpore runs only libraries below MS_CUSTOM_AOT_WHITE_LIST, where that is set."""
    allowed = os.environ.get("MS_CUSTOM_AOT_WHITE_LIST")
    if allowed is None or Path(allowed).resolve() in path.parents:
        return None
    return (
        f"MS_CUSTOM_AOT_WHITE_LIST={allowed} keeps MindSpore from {path}; "
        f"unset MS_CUSTOM_AOT_WHITE_LIST, or export MS_CUSTOM_AOT_WHITE_LIST={path.parent}"
    )


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
