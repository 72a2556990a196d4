"""What the tests ask of the runner on a phone."""

from __future__ import annotations

from lite_runtime.manifest import FormatEntry
from lite_runtime.runner_protocol import Decode, Measure, Replay, RunnerRequest

# Seconds for one run: emulated code is slow.
PATIENCE = 300.0


def request_of(entry: FormatEntry, task: Decode | Measure | Replay) -> RunnerRequest:
    """A task for one form of the bundle that was pushed as ``bundle``."""
    return RunnerRequest(
        bundle="bundle",
        format="onnx" if entry.format == "onnx" else "executorch",
        precision=entry.precision,
        cache=entry.cache,
        task=task,
    )
