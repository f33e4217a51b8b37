# SPDX-License-Identifier: Apache-2.0
"""Bringing a network over: layers and layouts of other libraries, and checkpoints."""


class PortError(RuntimeError):
    """A checkpoint or a network could not be brought over; the message says what to do."""
