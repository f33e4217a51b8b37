# SPDX-License-Identifier: Apache-2.0
"""The benchmark's count of the CUDA kernels' work is that of the kernels."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from benchmark.aot_library import GRADIENT_FUNCTIONS, AotLibrary
from benchmark.model import GPUS, SCRATCH_BYTES, Model, Primitive
from benchmark.rows import ROWS, Row
from element_types import ELEMENT_BYTES

# Passes of several images, shares of a tile, narrow groups, channels that are no whole vectors.
OTHERS = {
    "large batch": Row(33, 128, 128, 100, 136),
    "one pixel": Row(1, 512, 512, 1, 1),
    "depthwise": Row(2, 64, 64, 40, 40, g=64),
    "groups across offset groups": Row(2, 48, 96, 17, 19, g=3, og=2),
    "5x5": Row(1, 16, 8, 6, 7, k=5),
    "large image": Row(2, 256, 256, 1024, 1024),
}


@pytest.fixture
def library(emulated_cuda: Path) -> AotLibrary:
    return AotLibrary(emulated_cuda, emulated_cuda.parent)


def shapes_of(row: Row) -> dict[str, tuple[int, ...]]:
    size = row.output_size
    return {
        "input": (row.n, row.c, row.h, row.w),
        "offset": (row.n, 2 * row.og * row.taps, *size),
        "mask": (row.n, row.og * row.taps, *size),
        "weight": (row.o, row.c // row.g, row.k, row.k),
        "bias": (row.o,),
        "grad_output": (row.n, row.o, *size),
    }


def queue(library: AotLibrary, function: str, row: Row, dtype: str) -> int:
    """Calls a function on tensors that are not there, and gives its scratch."""
    shapes = shapes_of(row)
    if function == "MsDeformForward":
        names = ("input", "offset", "mask", "weight", "bias", "grad_output")
    else:
        names = ("input", "offset", "mask", "weight", "grad_output", *GRADIENT_FUNCTIONS[function])
    constants = [*(row.s,) * 2, *(row.padding,) * 4, 1, 1, True, True, False]
    library.release_scratch()
    library(function, [256] * len(names), [shapes[name] for name in names], dtype, constants)
    return library.scratch_bytes()


def count(library: AotLibrary, row: Row, dtype: str, record: Path) -> list[tuple[list, int]]:
    """Of each primitive: blocks, threads and shared memory of its launches, and its scratch."""
    counted = []
    for function in ("MsDeformForward", *GRADIENT_FUNCTIONS):
        record.write_text("")
        scratch = queue(library, function, row, dtype)
        launches = [[*map(int, text.split())] for text in record.read_text().splitlines()]
        counted.append((launches, scratch))
    return counted


def modelled(primitive: Primitive) -> tuple[list, int]:
    launches = [
        [launch.blocks, launch.threads, launch.shared_bytes] for launch in primitive.launches
    ]
    return launches, primitive.scratch


@pytest.mark.parametrize("multiprocessors", [3, GPUS["a100"].multiprocessors, 132])
@pytest.mark.parametrize("dtype", ELEMENT_BYTES)
def test_launches_and_scratch_are_those_of_the_library(
    library: AotLibrary, dtype: str, multiprocessors: int, tmp_path: Path, monkeypatch
) -> None:
    record = tmp_path / "launches"
    monkeypatch.setenv("MS_EMULATION_RECORD", str(record))
    monkeypatch.setenv("MS_EMULATION_MULTIPROCESSORS", str(multiprocessors))
    for name, row in {**ROWS, **OTHERS}.items():
        primitives = Model(row, dtype, multiprocessors).primitives(training=True)
        assert [*map(modelled, primitives)] == count(library, row, dtype, record), name


@pytest.mark.parametrize("dtype", ELEMENT_BYTES)
def test_scratch_is_bounded_unless_one_image_needs_more(dtype: str) -> None:
    """That the model's scratch is the library's, the test above says."""
    for name, row in {**ROWS, **OTHERS}.items():
        models = (Model(each, dtype, 132) for each in (row, row._replace(n=1)))
        for taken, alone in zip(*(model.primitives(training=True) for model in models)):
            assert taken.scratch <= max(SCRATCH_BYTES, alone.scratch), name


@pytest.mark.needs("tqdm")
def test_the_benchmark_prints_the_count_without_a_gpu(monkeypatch, capsys) -> None:
    from benchmark import cli

    argv = ["benchmark.py", "c4", "edvr", "--device", "cuda", "--passes", "forward", "--model"]
    monkeypatch.setattr(sys, "argv", argv)
    cli.main()
    printed = capsys.readouterr().out
    # 2 * 50 * 68 * 256 * 256 * 9 operations at the 67 TFLOP/s of an H100's data sheet; for EDVR
    # 79 MB of input, offset, mask and output at 3.35 TB/s take less than 4.2 GFLOP do.
    assert re.search(r"^c4 +forward +0\.0599 +products", printed, re.MULTILINE)
    assert re.search(r"^edvr +forward +0\.0634 +products", printed, re.MULTILINE)
    assert "h100, float32\nfloor:" in printed
