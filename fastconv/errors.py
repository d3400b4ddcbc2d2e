"""The two errors of fastconv's own; everything else is a ValueError, TypeError or MemoryError."""

from __future__ import annotations


class Unsupported(NotImplementedError):
    """A backend or algorithm asked for by name refuses this problem; the message gives its reason."""


class Unavailable(RuntimeError):
    """A backend or ISA asked for by name cannot run on this machine; the message says what would make it run."""
