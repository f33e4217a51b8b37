# SPDX-License-Identifier: Apache-2.0
"""Builds, finds and checks libraries and CANN packages: all that works without MindSpore."""
