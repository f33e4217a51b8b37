#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the test suite in .venv, which it makes first if need be. Arguments go to pytest;
# --all also runs what takes long: sanitizers, emulated machines, nvcc for every architecture.
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"
prepare test
# In two processes: a test mostly waits for one thread of MindSpore or of a compiler. More of them take
# 3 GB each, and the kernels use all cores.
exec "$venv/bin/python" -m pytest -n 2 --dist loadfile "$@"
