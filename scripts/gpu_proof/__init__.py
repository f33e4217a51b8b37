# SPDX-License-Identifier: Apache-2.0
"""Proves the CUDA kernels on a GPU: __main__.py says how. Only the standard library is needed."""
