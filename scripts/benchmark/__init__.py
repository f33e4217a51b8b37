# SPDX-License-Identifier: Apache-2.0
"""Times deform_conv2d beside other implementations: cli.py says how."""
