# SPDX-License-Identifier: Apache-2.0
"""`python -m ms_deform build` and `python -m ms_deform doctor`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ms_deform import builder, doctor, library


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ms_deform")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="build the kernel libraries that are out of date")
    build.add_argument(
        "--cuda", action="store_true", help="the library for NVIDIA GPUs as well; needs nvcc"
    )
    build.add_argument(
        "--arch",
        metavar="ARCH",
        nargs="+",
        default=[],
        help="with --cuda: GPUs to build for, such as sm_80 "
        f"(default: those of {', '.join(builder.CUDA_ARCHITECTURES)} that nvcc knows)",
    )
    build.add_argument("--force", action="store_true", help="build those up to date as well")
    build.add_argument(
        "--directory",
        metavar="DIR",
        help="where the libraries go (default: MS_DEFORM_LIBRARY_DIR or the package)",
    )
    commands.add_parser("doctor", help="say what works here, and what mends the rest")
    options = parser.parse_args(arguments)
    if options.command == "doctor":
        return doctor.main()
    if options.arch and not options.cuda:
        build.error("--arch goes with --cuda")
    try:
        for target in ("cpu", "cuda") if options.cuda else ("cpu",):
            architectures = options.arch if target == "cuda" else ()
            path = builder.build(target, options.force, options.directory, (), architectures)
            info = library.read_info(path)
            print(f"{path} ({info.machine}: {', '.join(info.isas)})")
    except (builder.BuildError, library.LibraryError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
