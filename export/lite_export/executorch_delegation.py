"""What of an ExecuTorch file runs in XNNPACK, read from the file's own instructions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from executorch.exir.schema import DelegateCall, ExecutionPlan, KernelCall

from lite_export.executorch_pack import read_program


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
        OSError: the file cannot be read.
    """
    program, _ = read_program(path.read_bytes())
    return tuple(_of_plan(plan) for plan in program.execution_plan if _calls(plan))


def _calls(plan: ExecutionPlan) -> list[KernelCall | DelegateCall]:
    instructions = [i.instr_args for chain in plan.chains for i in chain.instructions]
    return [call for call in instructions if isinstance(call, KernelCall | DelegateCall)]


def _of_plan(plan: ExecutionPlan) -> Delegation:
    calls = _calls(plan)
    kernels = [plan.operators[call.op_index] for call in calls if isinstance(call, KernelCall)]
    outside = Counter(f"{o.name}.{o.overload}" if o.overload else o.name for o in kernels)
    return Delegation(plan.name, len(calls) - len(kernels), dict(sorted(outside.items())))
