"""What a test needs of the machine: without it the test is skipped and says why, but never in CI."""

from __future__ import annotations

import os
import sys

import pytest


def require(reason: str | None) -> None:
    """``reason``: why this machine cannot; None if it can. CI on Linux as root has all it needs: there it fails."""
    if reason is None:
        return
    if os.environ.get("CI") == "true" and sys.platform == "linux" and os.geteuid() == 0:
        pytest.fail(f"CI must run this: {reason}", pytrace=False)
    pytest.skip(reason)
