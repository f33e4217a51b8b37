#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Proves the CUDA kernels on this machine's NVIDIA GPU and writes what it finds into a folder, in less
# than nine minutes and without the network. It needs nvcc, g++ and a Python with PyTorch, pytest and
# filelock, not MindSpore. --help says the rest. Environment: PYTHON, the Python to use.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONPATH=$root:$root/scripts${PYTHONPATH:+:$PYTHONPATH}
exec "${PYTHON:-python3}" -m gpu_proof "$@"
