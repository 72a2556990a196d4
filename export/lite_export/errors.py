"""What an export can fail with."""

from __future__ import annotations


class ExportError(ValueError):
    """A model cannot be exported as asked; the message says why, and the way out."""
