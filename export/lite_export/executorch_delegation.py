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
    """One method.

    Attributes:
        calls: how often it calls the delegate.
        inside: operations of the delegate's graphs.
        outside: what the interpreter runs itself, and how often, by operator.
    """

    method: str
    calls: int
    inside: int
    outside: dict[str, int]

    def __str__(self) -> str:
        rest = ", ".join(f"{count} {name}" for name, count in self.outside.items()) or "nothing"
        every = self.inside + sum(self.outside.values())
        times = "1 call" if self.calls == 1 else f"{self.calls} calls"
        return f"{self.method}: {self.inside} of {every} operations in XNNPACK ({times}); outside: {rest}"


def delegation(path: Path) -> tuple[Delegation, ...]:
    """Every method of the ``.pte`` at ``path`` that runs any instruction.

    Raises:
        ExportError: ExecuTorch is not installed.
        OSError: the file cannot be read.
    """
    with quiet():
        require_executorch()
        from lite_export.executorch_file import ProgramFile

        file = ProgramFile.read(path.read_bytes())
    found = [_of_plan(plan, file.payloads[plan.name]) for plan in file.program.execution_plan]
    return tuple(each for each in found if each.calls or each.outside)


def _of_plan(plan: ExecutionPlan, payloads: list[bytes]) -> Delegation:
    from executorch.exir.schema import DelegateCall, KernelCall

    from lite_export.xnnpack_graph import XnnpackGraph

    instructions = [instruction.instr_args for chain in plan.chains for instruction in chain.instructions]
    kernels = [plan.operators[each.op_index] for each in instructions if isinstance(each, KernelCall)]
    outside = Counter(f"{o.name}.{o.overload}" if o.overload else o.name for o in kernels)
    inside = sum(len(XnnpackGraph(payload).content["xnodes"]) for payload in payloads)
    calls = sum(isinstance(each, DelegateCall) for each in instructions)
    return Delegation(plan.name, calls, inside, dict(sorted(outside.items())))
