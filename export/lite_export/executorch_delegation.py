"""What of an ExecuTorch file runs in XNNPACK, read from the file's own instructions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lite_export.executorch_export import require_executorch
from lite_runtime.quiet_executorch import quiet

if TYPE_CHECKING:
    from executorch.exir.schema import ExecutionPlan


@dataclass(frozen=True)
class Delegation:
    """One method: how often it calls the delegate, and what the interpreter runs itself, by operator."""

    method: str
    delegated: int
    outside: dict[str, int]

    def __str__(self) -> str:
        rest = ", ".join(f"{count} {name}" for name, count in self.outside.items()) or "nothing"
        return f"{self.method}: {self.delegated} delegated, outside: {rest}"


def delegation(path: Path) -> tuple[Delegation, ...]:
    """Every method of the ``.pte`` at ``path`` that runs any instruction.

    Raises:
        ExportError: ExecuTorch is not installed.
        OSError: the file cannot be read.
    """
    with quiet():
        require_executorch()
        from lite_export.executorch_pack import read_program

        program, _ = read_program(path.read_bytes())
    found = [_of_plan(plan) for plan in program.execution_plan]
    return tuple(each for each in found if each.delegated or each.outside)


def _of_plan(plan: ExecutionPlan) -> Delegation:
    from executorch.exir.schema import DelegateCall, KernelCall

    calls = [instruction.instr_args for chain in plan.chains for instruction in chain.instructions]
    kernels = [plan.operators[call.op_index] for call in calls if isinstance(call, KernelCall)]
    outside = Counter(f"{o.name}.{o.overload}" if o.overload else o.name for o in kernels)
    return Delegation(plan.name, sum(isinstance(call, DelegateCall) for call in calls), dict(sorted(outside.items())))
