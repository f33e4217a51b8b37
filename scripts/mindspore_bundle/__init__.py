# SPDX-License-Identifier: Apache-2.0
"""What of an installed MindSpore its GPU target needs to run this project's operator."""
