# SPDX-License-Identifier: Apache-2.0
"""Bringing a network over: layers and layouts of other libraries, and checkpoints."""
