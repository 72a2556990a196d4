"""The parity ladder on a device: the native runner replays a bundle's golden steps there, and decodes its sentences.

Tolerances and report are the ladder's. Two rungs are the host's alone: what each layer gave, and one call. The tokens
rung compares each next token of greedy search, as far as the prefix is still the recorded one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lite_runtime.bundle import Bundle
from lite_runtime.device import Device, DeviceError
from lite_runtime.golden import GoldenSentence, load_golden
from lite_runtime.ladder import FormatParity, ParityReport, beams_of
from lite_runtime.manifest import FormatEntry
from lite_runtime.native_runner import NativeRunner
from lite_runtime.parity import Differences, Rung, RungName, Shares, compare_hypotheses, first_difference
from lite_runtime.runner_protocol import (
    Decode,
    Decoded,
    Difference,
    Hypothesis,
    Replay,
    Replayed,
    RunnerRequest,
    Sentence,
)
from lite_runtime.tolerances import Tolerance, tolerance_of

_PLACE = "bundle"
# Sentences of one run of the runner, which loads the model anew.
_PART = 20


def runnable(entries: Sequence[FormatEntry]) -> tuple[FormatEntry, ...]:
    """Those the native runner can run: Core ML's run on Apple's devices, in Apple's runtime."""
    return tuple(entry for entry in entries if entry.format != "coreml")


@dataclass(frozen=True)
class DeviceClimb:
    """What to climb, and where.

    Attributes:
        runner: the native runner, on the device.
        entries: formats to climb with, of those that are ``runnable``.
        sentences: use only the first so many golden sentences.
        threads: of the model.
        timeout: seconds for one run of the runner: the golden steps, or 20 sentences.
    """

    bundle: Bundle
    runner: NativeRunner
    entries: tuple[FormatEntry, ...]
    sentences: int | None = None
    threads: int = 1
    timeout: float = 600.0

    def golden(self) -> tuple[GoldenSentence, ...]:
        """The sentences to decode."""
        return load_golden(self.bundle.folder / self.bundle.manifest.golden.sentences)[: self.sentences]

    def pieces(self) -> int:
        """How often ``run`` will call ``on_piece``."""
        parts = -(-len(self.golden()) // _PART)
        return sum(1 + parts * len(beams_of(entry)) for entry in self.entries)

    def run(self, on_piece: Callable[[], None] = lambda: None) -> ParityReport:
        """Push the bundle and climb; ``on_piece`` is called after each run of the runner.

        Raises:
            DeviceError: the device is missing or too small, or its runner failed or was built for another version.
        """
        facts = self.runner.device.facts()
        self.runner.push_bundle(self.bundle, self.entries, _PLACE)
        return ParityReport(
            bundle=str(self.bundle.folder),
            model_id=self.bundle.manifest.card.model_id,
            reference="recorded",
            device=facts,
            formats=tuple(self._climb(entry, on_piece) for entry in self.entries),
        )

    def _climb(self, entry: FormatEntry, on_piece: Callable[[], None]) -> FormatParity:
        tolerance, golden = tolerance_of(entry), self.golden()
        rungs = [*self._steps(entry, tolerance, on_piece), *self._searches(entry, golden, tolerance, on_piece)]
        return FormatParity(
            name=entry.name,
            format=entry.format,
            precision=entry.precision,
            cache=entry.cache,
            sentences=len(golden),
            rungs=tuple(rungs),
        )

    def _steps(self, entry: FormatEntry, tolerance: Tolerance, on_piece: Callable[[], None]) -> Iterator[Rung]:
        replayed = self._ask(entry, Replay())
        if not isinstance(replayed, Replayed):
            raise _other_answer(self.runner.device)
        on_piece()
        first = [difference for difference in replayed.differences if difference.step <= 0]
        yield _bounded("outputs", first, tolerance.tensors)
        yield _bounded("steps", replayed.differences, tolerance.tensors)

    def _searches(
        self,
        entry: FormatEntry,
        golden: Sequence[GoldenSentence],
        tolerance: Tolerance,
        on_piece: Callable[[], None],
    ) -> tuple[Rung, Rung]:
        tokens, hypotheses = Shares("tokens", tolerance.tokens), Shares("hypotheses", tolerance.hypotheses)
        worst_score = 0.0
        for beam in beams_of(entry):
            for number, (sentence, found) in enumerate(self._decoded(entry, golden, beam, on_piece)):
                wanted = sentence.greedy if beam == 1 else sentence.beam[0]
                if beam == 1:
                    _count_tokens(tokens, number, wanted.tokens, found.tokens)
                off = compare_hypotheses(hypotheses, number, beam, [wanted], [found], tolerance.score)
                worst_score = max(worst_score, off)
        hypotheses.remarks.append(f"scores of the others within {worst_score:.1e}")
        return tokens.result(), hypotheses.result()

    def _decoded(
        self, entry: FormatEntry, golden: Sequence[GoldenSentence], beam: int, on_piece: Callable[[], None]
    ) -> Iterator[tuple[GoldenSentence, Hypothesis]]:
        """Every sentence with the device's best hypothesis."""
        manifest = self.bundle.manifest
        for first in range(0, len(golden), _PART):
            part = golden[first : first + _PART]
            sentences = tuple(
                Sentence(source=s.source, max_length=manifest.decoding.longest(len(s.source), manifest.limits))
                for s in part
            )
            # Golden hypotheses are recorded without the ban on repetition; see parity.translate_golden.
            task = Decode(sentences=sentences, beam=beam, length_penalty=manifest.decoding.length_penalty)
            decoded = self._ask(entry, task)
            if not isinstance(decoded, Decoded) or len(decoded.hypotheses) != len(part):
                raise _other_answer(self.runner.device)
            on_piece()
            yield from zip(part, decoded.hypotheses, strict=True)

    def _ask(self, entry: FormatEntry, task: Decode | Replay) -> object:
        request = RunnerRequest(
            bundle=_PLACE,
            format="onnx" if entry.format == "onnx" else "executorch",
            precision=entry.precision,
            cache=entry.cache,
            threads=self.threads,
            task=task,
        )
        return self.runner.run(request, self.timeout).result


def _bounded(name: RungName, found: Sequence[Difference], tolerance: float) -> Rung:
    watch = Differences(name, tolerance)
    for difference in found:
        largest = math.inf if difference.largest is None else difference.largest
        watch.add(0, difference.step, difference.tensor, largest, "as the native runner measured it")
    return watch.result()


def _count_tokens(watch: Shares, number: int, wanted: Sequence[int], found: Sequence[int]) -> None:
    same = first_difference(wanted, found)
    for step in range(same):
        watch.count(True, number, step, "best token", "")
    if same < len(wanted):
        what = f"{found[same]} instead of {wanted[same]}" if same < len(found) else "it ends too early"
        watch.count(False, number, same, "best token", f"sentence {number}: {what}")


def _other_answer(device: Device) -> DeviceError:
    return DeviceError(f"{device.name}: the native runner answered another question: use one built from this version")
