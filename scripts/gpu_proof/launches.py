# SPDX-License-Identifier: Apache-2.0
"""Queues a training step of each row in each dtype, for a profiler, until the time is over.

Each has a stream of its own, by which the profiler tells them apart.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from benchmark.cuda import MsDeform
from benchmark.rows import find_rows
from benchmark.side import make_call


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path, help="gets the rows and dtypes that were queued")
    parser.add_argument("--rows", nargs="+", required=True)
    parser.add_argument("--dtypes", nargs="+", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.seconds
    rows = {key: row for name in arguments.rows for key, row in find_rows(name).items()}
    queued = []
    for name, row in rows.items():
        for dtype in arguments.dtypes:
            if time.monotonic() > end:
                return
            side = MsDeform(make_call(row, dtype, True, 1, "cuda"))
            torch.cuda.synchronize()
            with torch.cuda.stream(torch.cuda.Stream()):
                side()  # loads the kernels
                torch.cuda.synchronize()
                torch.cuda.profiler.start()
                side()
                torch.cuda.synchronize()
                torch.cuda.profiler.stop()
            queued.append({"row": name, "dtype": dtype})
            arguments.file.write_text(json.dumps(queued))


if __name__ == "__main__":
    main()
