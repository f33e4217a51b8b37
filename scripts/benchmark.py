# SPDX-License-Identifier: Apache-2.0
"""Runs the package benchmark beside this file."""

from benchmark.cli import main

if __name__ == "__main__":
    main()
