"""A decode taken down step by step: produced by any Session, or read back from a bundle's golden file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from safetensors.numpy import load_file, save_file

from lite_runtime.session import Session, State


@dataclass(frozen=True)
class Script:
    """What to decode: a padded source batch, and the tokens fed at every step.

    Shapes: source and mask (B, S); fed (T, B), its first row the start token.
    """

    source: Int[np.ndarray, "B S"]
    mask: Bool[np.ndarray, "B S"]
    fed: Int[np.ndarray, "T B"]


@dataclass(frozen=True)
class Moment:
    """What a session held after ``step``; step -1 is the encoder's result, which has no logits.

    ``state`` is canonical; ``layers`` is what each layer of the encoder or the decoder gave.
    """

    step: int
    logits: Float[np.ndarray, "B V"] | None
    state: State
    layers: State


def make_script(sources: Sequence[Sequence[int]], outputs: Sequence[Sequence[int]], start: int, pad: int) -> Script:
    """A script over sentences and the outputs to feed back; both are padded on the right.

    Padding is kept in the fed tokens too: every row runs to the longest, so no step goes unchecked.
    """
    source = _padded(sources, pad)
    fed = _padded([[start, *output[:-1]] for output in outputs], pad)
    return Script(source=source, mask=source != pad, fed=np.ascontiguousarray(fed.T))


def _padded(rows: Sequence[Sequence[int]], pad: int) -> Int[np.ndarray, "B L"]:
    result = np.full((len(rows), max(map(len, rows))), pad, dtype=np.int64)
    for i, row in enumerate(rows):
        result[i, : len(row)] = row
    return result


def play(session: Session, script: Script) -> Iterator[Moment]:
    """Run a script through a session, which carries its own state from step to step."""
    state = session.encode(script.source, script.mask)
    yield Moment(-1, None, session.canonical(state), session.layers)
    for step, tokens in enumerate(script.fed):
        logits, state = session.step(tokens, step, state)
        yield Moment(step, logits, session.canonical(state), session.layers)


def save_recording(path: Path, script: Script, moments: Iterable[Moment]) -> None:
    """Write a script and everything it produced as one safetensors file (unchanged tensors once)."""
    tensors = {f"script/{name}": np.ascontiguousarray(value) for name, value in vars(script).items()}
    last: State = {}
    for moment in moments:
        if moment.logits is not None:
            tensors[f"{moment.step}/logits"] = np.ascontiguousarray(moment.logits)
        for name, value in moment.state.items():
            if last.get(name) is not value:
                tensors[f"{moment.step}/state/{name}"] = np.ascontiguousarray(value)
        for name, value in moment.layers.items():
            tensors[f"{moment.step}/layers/{name}"] = np.ascontiguousarray(value)
        last = moment.state
    save_file(tensors, path)
    path.chmod(0o644)


def load_recording(path: Path) -> tuple[Script, list[Moment]]:
    """Read back what ``save_recording`` wrote."""
    tensors = load_file(path)
    script = Script(*(tensors[f"script/{name}"] for name in ("source", "mask", "fed")))
    moments: list[Moment] = []
    state: State = {}
    for step in range(-1, len(script.fed)):
        state = {**state, **_under(tensors, f"{step}/state/")}
        moments.append(Moment(step, tensors.get(f"{step}/logits"), state, _under(tensors, f"{step}/layers/")))
    return script, moments


def _under(tensors: State, prefix: str) -> State:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
