"""What can be wrong with the files a report is made of."""

from __future__ import annotations


class ReportError(ValueError):
    """A file cannot be reported on; the message names it."""
