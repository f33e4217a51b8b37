# SPDX-License-Identifier: Apache-2.0
"""Taking a network further: ONNX and MindIR files."""
