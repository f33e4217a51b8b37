# SPDX-License-Identifier: Apache-2.0
"""As much of an installed MindSpore as its GPU target needs to run this project's operator.

pack.py makes a bundle, run.py runs the tests from it where there is a GPU, but no MindSpore.
"""
