#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the test suite in .venv, which it makes first if need be. Arguments go to pytest;
# --all also runs what takes long: sanitizers, emulated machines, nvcc for every architecture.
# --gpu-stand-in, as the first one, runs what is for MindSpore's GPU target, without a GPU.
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"
prepare test
run=("$venv/bin/python")
if [[ ${1:-} == --gpu-stand-in ]]; then
  run+=(tests/gpu_stand_in.py)
  shift
fi
# In two processes: a test mostly waits for one thread of MindSpore or of a compiler. More of them take
# 3 GB each, and the kernels use all cores.
exec "${run[@]}" -m pytest -n 2 --dist loadfile "$@"
