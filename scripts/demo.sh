#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs scripts/demo.py in .venv, which it makes first if need be. Arguments go to demo.py.
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"
prepare demo
# MindSpore's warnings, one of them at every start, would tear the progress bar.
export GLOG_v="${GLOG_v:-3}"
exec "$venv/bin/python" scripts/demo.py "$@"
