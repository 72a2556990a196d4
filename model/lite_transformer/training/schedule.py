"""Learning rate as a pure function of the update number."""

from __future__ import annotations

import math

from lite_transformer.training.recipe import Schedule


def learning_rate(schedule: Schedule, step: int) -> float:
    """Rate of update ``step`` (the first is 0)."""
    if step < schedule.warmup:
        return schedule.peak * (step + 1) / schedule.warmup
    if schedule.kind == "inverse_sqrt":
        return schedule.peak * math.sqrt(max(schedule.warmup, 1) / (step + 1))
    progress = min(1.0, (step - schedule.warmup) / max(1, schedule.steps - schedule.warmup))
    return schedule.floor + (schedule.peak - schedule.floor) * 0.5 * (1 + math.cos(math.pi * progress))
