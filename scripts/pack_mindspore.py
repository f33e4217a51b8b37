# SPDX-License-Identifier: Apache-2.0
"""Runs the package mindspore_bundle beside this file."""

from mindspore_bundle.pack import main

if __name__ == "__main__":
    main()
