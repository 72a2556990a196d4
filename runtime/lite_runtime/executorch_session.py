"""ExecuTorch as a Session: one ``.pte`` with the methods ``encode`` and ``step``, a row at a time.

Torch comes in here only, as ExecuTorch's Python binding takes and gives its tensors.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from lite_runtime.bundle import BundleError, sha256_of
from lite_runtime.manifest import FormatEntry
from lite_runtime.quiet_executorch import INSTALL, native_log, quiet
from lite_runtime.rows import HELD, RowSession, StepResult

Arrays = dict[str, np.ndarray]


def executorch_session(folder: Path, entry: FormatEntry, threads: int | None = None) -> RowSession:
    """A bundle's ExecuTorch format, loaded.

    Args:
        threads: of the delegate's pool, which all sessions of the process share; None leaves it as it is.

    Raises:
        BundleError: ExecuTorch is not installed, or the file is missing, damaged or made for another version.
    """
    runtime = _runtime()
    _check_bytes(folder, entry)
    if threads is not None:
        with native_log():
            runtime._unsafe_reset_threadpool(threads)
    return RowSession(ExecutorchProgram(runtime, folder, entry), entry.state)


class ExecutorchProgram:
    """A ``RowProgram``. Where the step keeps its state, every row has a copy of the program of its own."""

    def __init__(self, runtime: ModuleType, folder: Path, entry: FormatEntry) -> None:
        self._runtime, self._path, self._file = runtime, folder / entry.step.file, entry.step.file
        self._fixed = [spec.name for spec in entry.state if spec.initial is None]
        self._given = [spec.name for spec in entry.state if not spec.held]
        self._changing = [spec.name for spec in entry.state if spec.output and not spec.held]
        self._encoder_layers, self._decoder_layers = entry.encode.layers, entry.step.layers
        self._held = any(spec.held for spec in entry.state)
        self._idle: list[_Method] = []
        first = self._program()
        self._encode = _Method(first, "encode", self._file)
        # Methods of one program share their memory, so a step that keeps its state has a program to itself.
        self._step = _Method(self._program() if self._held else first, "step", self._file)
        if self._held:
            self._idle.append(self._step)

    def _program(self) -> Any:
        with native_log() as told:
            try:
                return self._runtime._load_program(str(self._path))
            except RuntimeError as error:
                raise BundleError(_refusal(self._file, told(), error)) from None

    def encode(self, source: Int[np.ndarray, "1 S"], mask: Bool[np.ndarray, "1 S"]) -> tuple[Arrays, Arrays]:
        """See RowProgram.encode."""
        # Copies: torch takes no array that is read only.
        outputs = self._encode([np.array(source, np.int64), np.array(mask)])
        count = len(self._fixed)
        return (
            dict(zip(self._fixed, outputs[:count], strict=True)),
            dict(zip(self._encoder_layers, outputs[count:], strict=True)),
        )

    def step(self, token: Int[np.ndarray, " 1"], position: int, state: dict[str, Any]) -> StepResult:
        """See RowProgram.step."""
        method = state[HELD].method if self._held else self._step
        given = (state[name] for name in self._given)
        logits, *rest = method([np.array(token, np.int64), np.array([position]), *given])
        count = len(self._changing)
        changed = dict(zip(self._changing, rest[:count], strict=True))
        return StepResult(logits, changed, dict(zip(self._decoder_layers, rest[count:], strict=True)))

    def hold(self) -> _Held | None:
        """See RowProgram.hold. A copy of the program that another row is done with serves again."""
        if not self._held:
            return None
        held = _Held(self._idle.pop() if self._idle else _Method(self._program(), "step", self._file))
        weakref.finalize(held, self._idle.append, held.method).atexit = False
        return held

    def fork(self, held: Any) -> Any:
        """See RowProgram.fork: ExecuTorch cannot."""
        raise BundleError(
            f"{self._file} keeps its state inside, and ExecuTorch cannot copy it: search greedily,"
            " or use the explicit cache for a beam"
        )


class _Held:
    """What a row owns while it lives: a step method, whose buffers hold its state."""

    def __init__(self, method: _Method) -> None:
        self.method = method


class _Method:
    """One loaded method: numpy in, numpy out."""

    def __init__(self, program: Any, name: str, file: str) -> None:
        # The method reads the program's bytes, so it must not outlive it.
        self._program, self._name, self._file = program, name, file
        with native_log() as told:
            try:
                self._method = program.load_method(name)
            except RuntimeError as error:
                raise BundleError(_refusal(file, told(), error)) from None

    def __call__(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        from torch import from_numpy

        try:
            return [tensor.numpy() for tensor in self._method([from_numpy(array) for array in arrays])]
        except RuntimeError as error:
            shapes = ", ".join(str(array.shape) for array in arrays[:2])
            raise BundleError(
                f"ExecuTorch failed in {self._name} of {self._file} ({error}) on inputs of shape {shapes}:"
                " is the sentence longer than the bundle's limits?"
            ) from None


def _refusal(file: str, told: str, error: RuntimeError) -> str:
    # The native log says more than the exception's number.
    reason = told.splitlines()[-1].partition("] ")[2] if told else ""
    return f"ExecuTorch cannot load {file}: {reason or error}; copy the bundle again, or export it anew"


def _check_bytes(folder: Path, entry: FormatEntry) -> None:
    """ExecuTorch checks a program's own bytes, but not its delegates': with damage there the process may die."""
    path = folder / entry.step.file
    if not path.is_file():
        raise BundleError(f"the bundle's {entry.step.file} is missing: copy it again")
    for file in entry.files:
        if file.path == entry.step.file and sha256_of(path) != file.sha256:
            raise BundleError(f"the bundle's {file.path} is damaged (its sha256 differs): copy it again")


def _runtime() -> ModuleType:
    """ExecuTorch's binding, with the kernels of quantized programs registered."""
    try:
        with quiet():
            # Not the module around it, which imports the whole exporter: seconds for a class of warnings.
            import torch  # noqa: F401  (what the binding is linked against)
            from executorch.extension.pybindings import _C
            from executorch.kernels import quantized  # noqa: F401
    except ModuleNotFoundError as error:
        raise BundleError(f"{error.name} is not installed, which ExecuTorch needs: {INSTALL}") from None
    return _C
