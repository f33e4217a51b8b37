# SPDX-License-Identifier: Apache-2.0
"""What the CUDA kernels are launched for, counted from the geometry: no GPU is needed or measured.

Mirrors the tiles, shares and passes of aot_kernels/cuda; a test compares the launches and the
scratch with those of the library itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd
from typing import NamedTuple

from benchmark.rows import Row
from benchmark.side import ELEMENT_BYTES

# product.h, launch.h, slabs.h, forward.h, backward_input.h, backward_weight.h, backward_bias.h
COLUMNS = 64
WARP = 32
ELEMENT_THREADS = 256
SQUARE = 32
SCRATCH_BYTES = 64 << 20
PLAN_ROWS = 16
MOST_TAPS = 9
BIAS_THREADS = 512
WEIGHT_BLOCKS_OF_MULTIPROCESSOR = 4
WEIGHT_STEPS_OF_SHARE = 16


class Gpu(NamedTuple):
    """Peak figures of NVIDIA's data sheets (SXM boards, without sparsity)."""

    multiprocessors: int
    bytes_per_second: float
    flops_per_second: dict[str, float]  # of the kind of product that the kernels use


GPUS = {
    "h100": Gpu(
        132, 3.35e12, {"float32": 67e12, "float64": 34e12, "float16": 989e12, "bfloat16": 989e12}
    ),
    "a100": Gpu(
        108, 2.04e12, {"float32": 19.5e12, "float64": 9.7e12, "float16": 312e12, "bfloat16": 312e12}
    ),
}


def ceil_divide(a: int, b: int) -> int:
    return -(-a // b)


def round_up(a: int, unit: int) -> int:
    return ceil_divide(a, unit) * unit


@dataclass(frozen=True)
class Launch:
    """One kernel's launch, and what it does. Bytes: of device memory, each tensor moved once."""

    what: str
    blocks: int
    threads: int
    shared_bytes: int = 0
    bytes: int = 0
    flops: int = 0  # of matrix products, with the padding of tiles
    samples: int = 0  # that are read, each from four corners
    atomic_bytes: int = 0

    def seconds(self, gpu: Gpu, dtype: str) -> float:
        """What it takes at least: at the peak rates, on the multiprocessors that have a block."""
        rounds = ceil_divide(self.blocks, gpu.multiprocessors)
        used = self.blocks / (rounds * gpu.multiprocessors)
        return max(
            self.bytes / gpu.bytes_per_second, self.flops / gpu.flops_per_second[dtype] / used
        )


def elements(what: str, count: int, moved: int) -> Launch:
    return Launch(what, ceil_divide(count, ELEMENT_THREADS), ELEMENT_THREADS, bytes=moved)


@dataclass(frozen=True)
class Primitive:
    """The launches of one primitive, and the device memory it takes beside the tensors."""

    launches: tuple[Launch, ...]
    scratch: int


class Model:
    """The primitives of one row in one dtype on a GPU with so many multiprocessors."""

    def __init__(self, row: Row, dtype: str, multiprocessors: int) -> None:
        self.row = row
        self.multiprocessors = multiprocessors
        self.size = ELEMENT_BYTES[dtype]
        self.real = max(4, self.size)
        self.vector = 16 // self.size
        self.step = 4 * self.vector
        height, width = row.output_size
        self.out_pixels = height * width
        self.pixel_tiles = ceil_divide(self.out_pixels, COLUMNS)
        self.slab_pixels = (row.h + 3) * (row.w + 1)
        self.slab_size = self.slab_pixels * row.c
        self.group_in, self.group_out = row.c // row.g, row.o // row.g
        self.segment = gcd(self.group_in, row.c // row.og)
        self.group_rows = self.group_in // self.segment * row.taps
        self.weight_size = row.o * self.group_in * row.taps

    def primitives(self, training: bool) -> Iterator[Primitive]:
        yield self.forward()
        if training:
            yield self.backward_input()
            yield self.backward_weight()
            yield self.backward_bias()

    # Bytes of the tensors of some images, each once.
    def _input(self, images: int) -> int:
        return images * self.row.c * self.row.h * self.row.w * self.size

    def _output(self, images: int) -> int:
        return images * self.row.o * self.out_pixels * self.size

    def _sampling(self, images: int) -> int:
        return images * 3 * self.row.og * self.row.taps * self.out_pixels * self.size

    def needed_samples(self, images: int) -> int:
        return images * self.row.c * self.row.taps * self.out_pixels

    def _tile_shape(self, rows: int, most_rows: int = 128) -> tuple[int, int]:
        """Rows of a block's tile, and channels loaded at once."""
        if self.segment % self.vector:
            return 64, 1
        if self.size == 2 and most_rows == 256 and ceil_divide(rows, 128) % 2 == 0:
            return 256, self.vector
        return (128 if rows > 64 else 64), self.vector

    @staticmethod
    def _threads(rows: int) -> int:
        return 256 if rows == 256 else 2 * rows

    def _blocks_of_multiprocessor(self, rows: int, lanes: int) -> int:
        if self.size == 8 or lanes == 1 or rows == 256:
            return 256 // self._threads(rows)
        return 3 if rows == 64 else 512 // self._threads(rows)

    def _stage(self, rows: int, by_step: bool) -> int:
        step_pitch, column_pitch = self.step + self.vector, COLUMNS + self.vector
        b = COLUMNS * step_pitch if by_step else self.step * column_pitch
        return round_up((rows * step_pitch + b) * self.size, 128)

    def _staging(self, rows: int) -> int:
        return self._threads(rows) // WARP * round_up(WARP * (WARP + 4) * self.real, 128)

    def _passes(self, element_bytes: int, other_bytes: int) -> list[int]:
        """The images of each pass."""
        most = max(1, (SCRATCH_BYTES - other_bytes) // max(1, self.slab_size * element_bytes))
        passes = max(1, ceil_divide(self.row.n, most))
        images = ceil_divide(self.row.n, passes)
        return [min(images, self.row.n - first) for first in range(0, self.row.n, images)]

    def _squares(self, pixels: int) -> int:
        return ceil_divide(self.row.c, SQUARE) * ceil_divide(pixels, SQUARE)

    def _fill_slabs(self, images: int) -> Launch:
        return Launch(
            "fill slabs",
            images * self._squares(self.slab_pixels),
            ELEMENT_THREADS,
            SQUARE * (SQUARE + 1) * self.size,
            self._input(images) + images * self.slab_size * self.size,
        )

    def forward(self) -> Primitive:
        row, size = self.row, self.size
        rows, lanes = self._tile_shape(self.group_out, most_rows=256)
        padded_row = round_up(self.segment, self.step)
        most_packed = row.o * self.group_rows * padded_row * size
        passes = self._passes(size, most_packed)
        images = passes[0]
        tiles = self.pixel_tiles * row.g * ceil_divide(self.group_out, rows)
        output_size = images * row.o * self.out_pixels
        left = SCRATCH_BYTES - most_packed - images * self.slab_size * size
        slots = self._blocks_of_multiprocessor(rows, lanes) * self.multiprocessors
        wanted = max(1, min(slots // (images * tiles), left // (output_size * self.real)))
        count = max(ceil_divide(self.group_rows, PLAN_ROWS), wanted)
        chunk_rows = ceil_divide(self.group_rows, count)
        chunks = ceil_divide(self.group_rows, chunk_rows)
        shares = min(wanted, chunks)
        packed = row.o * chunks * round_up(chunk_rows * self.segment, self.step)
        depth = sum(
            round_up(min(chunk_rows, self.group_rows - first) * self.segment, self.step)
            for first in range(0, self.group_rows, chunk_rows)
        )
        entry = 4 * self.real
        loop = PLAN_ROWS * COLUMNS * entry + 2 * self._stage(rows, by_step=True)
        launches = [elements("pack weights", packed, (self.weight_size + packed) * size)]
        for of_pass in passes:
            launches.append(self._fill_slabs(of_pass))
            sums = shares * of_pass * row.o * self.out_pixels * self.real if shares > 1 else 0
            launches.append(
                Launch(
                    "forward",
                    of_pass * tiles * shares,
                    self._threads(rows),
                    max(loop, self._staging(rows)),
                    of_pass * self.slab_size * size
                    + self._sampling(of_pass)
                    + packed * size
                    + (sums or self._output(of_pass)),
                    2 * of_pass * tiles * rows * COLUMNS * depth,
                    of_pass * tiles * COLUMNS * self.group_rows * self.segment,
                )
            )
            if sums:
                launches.append(
                    elements(
                        "add shares",
                        of_pass * row.o * self.out_pixels,
                        sums + self._output(of_pass),
                    )
                )
        scratch = packed * size + images * self.slab_size * size
        scratch += shares * output_size * self.real if shares > 1 else 0
        return Primitive(tuple(launches), scratch)

    def backward_input(self) -> Primitive:
        row, size, real = self.row, self.size, self.real
        rows, lanes = self._tile_shape(self.segment)
        most_taps = MOST_TAPS if rows == 64 else 1
        fitting = max(1, min(most_taps, min(rows, WARP * lanes) // self.segment))
        tap_tiles = ceil_divide(row.taps, ceil_divide(row.taps, ceil_divide(row.taps, fitting)))
        width = round_up(self.group_out, self.step)
        packed = row.c * row.taps * width
        passes = self._passes(size + real, packed * size)
        tiles = self.pixel_tiles * row.og * tap_tiles
        grad_columns = COLUMNS * (rows + 4) * real
        points = most_taps * COLUMNS * 8 * real  # the plan and the dots
        shared = points + max(2 * self._stage(rows, by_step=False), grad_columns)
        segments = row.c // row.og // self.segment
        depth = segments * round_up(self.segment, rows)
        launches = [elements("pack weights", packed, (self.weight_size + packed) * size)]
        for images in passes:
            launches.append(self._fill_slabs(images))
            launches.append(
                Launch(
                    "gradient of input",
                    images * tiles,
                    self._threads(rows),
                    round_up(shared, 128),
                    images * self.slab_size * (size + real)
                    + 2 * self._sampling(images)
                    + self._output(images)
                    + packed * size,
                    2 * images * tiles * COLUMNS * depth * width,
                    images * self.pixel_tiles * COLUMNS * row.c * row.taps,
                    4 * self.needed_samples(images) * real,
                )
            )
            launches.append(
                Launch(
                    "store gradient of input",
                    images * self._squares(row.h * row.w),
                    ELEMENT_THREADS,
                    SQUARE * (SQUARE + 1) * real,
                    images * self.slab_size * real + self._input(images),
                )
            )
        scratch = packed * size + passes[0] * self.slab_size * (size + real)
        return Primitive(tuple(launches), scratch)

    def backward_weight(self) -> Primitive:
        row, size, real = self.row, self.size, self.real
        rows, _ = self._tile_shape(self.group_out, most_rows=256)
        columns = self.group_in * row.taps
        column_tiles = ceil_divide(columns, COLUMNS)
        tiles = row.g * ceil_divide(self.group_out, rows) * column_tiles
        share_bytes = self.weight_size * real
        by_blocks = ceil_divide(WEIGHT_BLOCKS_OF_MULTIPROCESSOR * self.multiprocessors, tiles)
        most = max(1, min(by_blocks, SCRATCH_BYTES // 4 // share_bytes))
        passes = self._passes(size, most * share_bytes)
        steps = ceil_divide(self.out_pixels, self.step)
        shares = max(1, min(most, passes[0] * steps // WEIGHT_STEPS_OF_SHARE))
        entry = 4 * real
        loop = COLUMNS * self.step * entry + 2 * self._stage(rows, by_step=False)
        launches = []
        for images in passes:
            launches.append(self._fill_slabs(images))
            launches.append(
                Launch(
                    "gradient of weight",
                    tiles * shares,
                    self._threads(rows),
                    max(loop, self._staging(rows)),
                    images * self.slab_size * size
                    + self._sampling(images)
                    + self._output(images)
                    + shares * share_bytes,
                    2 * tiles * rows * COLUMNS * images * steps * self.step,
                    tiles // column_tiles * columns * images * steps * self.step,
                )
            )
        moved = shares * share_bytes + self.weight_size * size
        launches.append(elements("add shares", self.weight_size, moved))
        scratch = shares * share_bytes + passes[0] * self.slab_size * size
        return Primitive(tuple(launches), scratch)

    def backward_bias(self) -> Primitive:
        shared = BIAS_THREADS // WARP * self.real
        read = self._output(self.row.n)
        return Primitive(
            (Launch("gradient of bias", self.row.o, BIAS_THREADS, shared, read),), scratch=0
        )

    def floor(self, training: bool) -> Launch:
        """The least that any implementation does: tensors moved once, products without padding."""
        images = self.row.n
        inputs = self._input(images) + self._sampling(images) + self.weight_size * self.size
        moved = inputs + self._output(images)
        if training:  # the inputs and the output's gradient are read again, their gradients written
            moved += 2 * inputs + self._output(images)
        flops = self.row.flops(training)
        return Launch("floor", self.multiprocessors, WARP, bytes=moved, flops=flops)


HEADER = (
    "floor ms",
    "by",
    "counted",
    "launches",
    "products",
    "samples",
    "busy",
    "memory",
    "atomics",
    "scratch",
)
LEGEND = """\
floor: the tensors moved once at the bandwidth, or the products without padding at the rate of the
data sheet, whichever is more. Counted: the same for each of our launches, which take turns, on the
multiprocessors that have a block, over the floor. Products and samples: ours over those needed (the
padding of tiles; samples read again for each tile of outputs). Busy: multiprocessors in the rounds
of blocks of the longest launch. Memory: bytes that our launches move over those of the floor.
Atomics, scratch: in MB, MiB. All of it is counted, nothing measured: it says where time can go, not
how much."""


def line(row: Row, dtype: str, training: bool, gpu: Gpu) -> list[str]:
    """The cells below HEADER."""
    model = Model(row, dtype, gpu.multiprocessors)
    primitives = [*model.primitives(training)]
    launches = [launch for primitive in primitives for launch in primitive.launches]
    floor = model.floor(training)
    least = floor.seconds(gpu, dtype)
    by = "memory" if floor.bytes / gpu.bytes_per_second == least else "products"
    counted = sum(launch.seconds(gpu, dtype) for launch in launches)
    longest = max(launches, key=lambda launch: launch.seconds(gpu, dtype))
    rounds = ceil_divide(longest.blocks, gpu.multiprocessors)
    samples = model.needed_samples(row.n) * (3 if training else 1)
    return [
        f"{1e3 * least:.4f}",
        by,
        f"{counted / least:.1f}x",
        str(len(launches)),
        f"{sum(launch.flops for launch in launches) / floor.flops:.2f}x",
        f"{sum(launch.samples for launch in launches) / samples:.2f}x",
        f"{longest.blocks / (rounds * gpu.multiprocessors):.0%}",
        f"{sum(launch.bytes for launch in launches) / floor.bytes:.1f}x",
        f"{sum(launch.atomic_bytes for launch in launches) / 1e6:.0f}",
        f"{max(primitive.scratch for primitive in primitives) / 2**20:.1f}",
    ]
