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
    try:
        for target in builder.TARGETS:
            path = builder.build(target, force=options.force, directory=options.directory)
            info = library.read_info(path)
            print(f"{path} ({info.machine}: {', '.join(info.isas)})")
    except (builder.BuildError, library.LibraryError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
