"""Sequence-level distillation (Kim and Rush 2016): a teacher translates a corpus for its student to learn from.

Text of one language serves as well: translated into the student's target it is more to learn from, and a text of the
target language, translated by a model of the other direction, is back-translation (Sennrich et al. 2016).

1. cut the corpus into chunks  2. translate each, in one process or several; finished chunks are kept in a folder beside
the output  3. join them into one training file, and write beside it where it comes from.
"""

from __future__ import annotations

import json
import lzma
import multiprocessing
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Literal, cast

from lite_export.loading import MANIFEST, ModelError, is_bundle, load_translator
from lite_runtime.bundle import sha256_of
from lite_runtime.translator import TranslateOptions, Translation, Translator
from lite_transformer.checkpoint import WEIGHTS
from lite_transformer.files import staged_file
from lite_transformer.sole_user import sole_user
from lite_transformer.training.corpus import CorpusError, Pair, is_monolingual, read_pairs, read_sentences

Pick = Literal["best", "nearest"]
_KEY = "key.json"


class DistillError(ValueError):
    """A corpus cannot be distilled as asked; the message says what to change."""


@dataclass(frozen=True)
class DistillOptions:
    """How a teacher's translations are chosen.

    ``pick="best"`` takes the ``n_best`` best hypotheses of each source, a pair each; ``"nearest"`` the one of all
    ``beam`` that is nearest to the reference by sentence chrF (Kim and Rush's interpolation, which uses BLEU).
    ``chunk`` is the number of pairs that each process loses at most when a run is killed.
    """

    beam: int = 4
    n_best: int = 1
    pick: Pick = "best"
    batch_size: int = 64
    chunk: int = 2048

    def __post_init__(self) -> None:
        if not 1 <= self.n_best <= self.beam:
            raise DistillError(f"n-best is {self.n_best}: a beam of {self.beam} gives 1 to {self.beam} hypotheses")
        if self.pick == "nearest" and self.n_best != 1:
            raise DistillError("the nearest hypothesis is one: leave out --n-best, or pick the best")
        if min(self.batch_size, self.chunk) < 1:
            raise DistillError("batch size and chunk must be 1 or more")


@dataclass(frozen=True)
class Teacher:
    """A model folder, or a bundle, and where it runs: PyTorch's device, CPU threads (None: the runtime's choice)."""

    path: Path
    device: str = "cpu"
    threads: int | None = None

    def sha256(self) -> str:
        """Of its weights: for a bundle, of those it was exported from and of what was made of them."""
        return sha256_of(self.path / (MANIFEST if is_bundle(self.path) else WEIGHTS))

    def translator(self) -> Translator:
        """Text to text.

        Raises:
            DistillError: there is no such device here.
        """
        try:
            return load_translator(self.path, self.threads, self.device)
        except (RuntimeError, AssertionError) as error:
            raise DistillError(f"the teacher cannot run on {self.device!r}: {error}") from None


@dataclass(frozen=True)
class Work:
    """One chunk: its number in the corpus, its pairs, and the file its result goes to."""

    number: int
    pairs: list[Pair]
    path: Path


def distill(
    teacher: Teacher,
    corpus: Path,
    output: Path,
    options: DistillOptions,
    reverse: bool = False,
    limit: int | None = None,
    jobs: int = 1,
    on_progress: Callable[[int], None] | None = None,
) -> int:
    """Write ``output``, a ``SOURCE<TAB>TARGET`` file whose targets are the teacher's, and ``output``.json beside it.

    A run that was killed goes on after its last finished chunk. One that is finished returns at once.

    Args:
        corpus: ``SOURCE<TAB>TARGET`` lines, .tsv, .tsv.gz or .tsv.xz; or sentences of the source language alone, a
            line each, .txt, .txt.gz or .txt.xz.
        output: ends in .tsv.xz.
        reverse: the corpus holds ``TARGET<TAB>SOURCE``.
        limit: only the first so many pairs.
        jobs: processes that share the chunks, each with a teacher of its own: search itself runs on one CPU core.
        on_progress: called with the number of pairs done so far.

    Returns:
        pairs of the corpus that were translated.

    Raises:
        DistillError: another file name, one that is somebody else's, references asked for where the corpus has none,
            an unfinished run of another teacher, corpus or of other options, or a process of ``jobs`` was killed.
        CorpusError, ModelError, CheckpointError, BundleError: the corpus or the teacher cannot be used.
        InUseError: another process is making this output now.
    """
    if not output.name.endswith(".tsv.xz"):
        raise DistillError(f"{output} must end in .tsv.xz")
    if output.resolve() == corpus.resolve():
        raise DistillError(f"{output} is the corpus itself: name another --output")
    if is_monolingual(corpus) and (reverse or options.pick == "nearest"):
        raise DistillError(f"{corpus} has one language, no references: leave out --reverse and --pick nearest")
    report = on_progress or (lambda _done: None)
    key = _key(teacher, corpus, options, reverse, limit)
    card = output.with_name(f"{output.name}.json")
    if output.exists() and card.exists() and _read(card).items() >= key.items():
        report(count := cast("int", _read(card)["pairs"]))
        return count
    folder = output.with_name(f".{output.name}.chunks")
    # A kill may come between a result and its card: the chunks are still there then.
    if output.exists() and not card.is_file() and not (folder / _KEY).is_file():
        raise DistillError(f"{output} exists, and distill did not make it: name another --output, or remove it")
    with sole_user(folder):
        _claim(folder, key, output)
        total = 0
        pairs = ((s, t) if not reverse else (t, s) for s, t in islice(_read_corpus(corpus), limit))
        works = (Work(n, part, folder / f"{n:06d}.xz") for n, part in enumerate(_parts(pairs, options.chunk)))
        run = partial(_run, teacher, cast("str", key["teacher_sha256"]), options)
        for done in _finished(run, works, jobs):
            report(total := total + done)
        if not total:
            raise CorpusError(f"{corpus} has no sentence pairs")
        _join(sorted(folder.glob("*.xz")), output)
        _write(card, json.dumps({**key, "pairs": total}, indent=2).encode() + b"\n")
    shutil.rmtree(folder)
    return total


def count_pairs(corpus: Path, limit: int | None = None) -> int:
    """Pairs of a corpus, ``limit`` at most. Raises CorpusError as ``read_pairs`` does."""
    return sum(1 for _ in islice(_read_corpus(corpus), limit))


def _read_corpus(corpus: Path) -> Iterator[Pair]:
    """Sources with their references, empty where there are none."""
    return ((source, "") for source in read_sentences(corpus)) if is_monolingual(corpus) else read_pairs(corpus)


def candidates(translation: Translation) -> list[str]:
    """Whole translations of a text, best first: several only where it is one sentence."""
    if len(translation.sentences) != 1:
        return [translation.text]
    return [hypothesis.text for hypothesis in translation.sentences[0].hypotheses]


def chosen(found: Sequence[str], reference: str, options: DistillOptions) -> list[str]:
    """What a student shall learn from these hypotheses, best first: without empty ones, without repetitions."""
    clean = list(dict.fromkeys(line for text in found if (line := " ".join(text.split()))))
    if options.pick == "best" or not clean:
        return clean[: options.n_best]
    # Imported here: processes that translate nothing need not wait for it.
    from sacrebleu import sentence_chrf

    return [max(clean, key=lambda text: sentence_chrf(text, [reference]).score)]


def _key(
    teacher: Teacher, corpus: Path, options: DistillOptions, reverse: bool, limit: int | None
) -> dict[str, object]:
    """What the result depends on, and what a chunk is."""
    if not corpus.is_file():
        raise CorpusError(f"no data file {corpus}")
    if not is_bundle(teacher.path) and not (teacher.path / WEIGHTS).is_file():
        raise ModelError(f"{teacher.path} has no {WEIGHTS}")
    return {
        "teacher": teacher.path.resolve().name,
        "teacher_sha256": teacher.sha256(),
        "corpus": corpus.name,
        "corpus_sha256": sha256_of(corpus),
        "beam": options.beam,
        "n_best": options.n_best,
        "pick": options.pick,
        "reverse": reverse,
        "limit": limit,
        "chunk": options.chunk,
    }


def _claim(folder: Path, key: dict[str, object], output: Path) -> None:
    """Make sure that the chunks in a folder, new or of an earlier run, are of this work."""
    marker = folder / _KEY
    if marker.exists() and (old := _read(marker)) != key:
        changed = ", ".join(name for name in key if old.get(name) != key[name])
        raise DistillError(
            f"{output} was begun with another {changed}: repeat that command, name another output or remove {folder}"
        )
    _write(marker, json.dumps(key).encode())


def _parts(pairs: Iterable[Pair], size: int) -> Iterator[list[Pair]]:
    rest = iter(pairs)
    while part := list(islice(rest, size)):
        yield part


def _finished(run: Callable[[Work], int], works: Iterable[Work], jobs: int) -> Iterator[int]:
    """Pairs of each finished chunk, as they come."""
    if jobs == 1:
        yield from map(run, works)
        return
    # A fresh interpreter each: CUDA cannot be used in a forked process.
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"))
    try:
        for future in as_completed([pool.submit(run, work) for work in works]):
            yield future.result()
    except BrokenProcessPool:
        raise DistillError(
            "one of the processes was killed, perhaps for want of memory: run the same command again with fewer --jobs"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _run(teacher: Teacher, sha256: str, options: DistillOptions, work: Work) -> int:
    """Make a chunk, where it is not yet there."""
    if not work.path.exists():
        pairs = _translated(_translator(teacher, sha256), options, work.pairs)
        _write(work.path, lzma.compress("".join(f"{source}\t{target}\n" for source, target in pairs).encode()))
    return len(work.pairs)


@lru_cache(maxsize=1)
def _translator(teacher: Teacher, _sha256: str) -> Translator:
    """The teacher, loaded once a process; other weights are another teacher."""
    return teacher.translator()


def _translated(translator: Translator, options: DistillOptions, pairs: Sequence[Pair]) -> Iterator[Pair]:
    nbest = options.beam if options.pick == "nearest" else options.n_best
    search = TranslateOptions(beam=options.beam, nbest=nbest)
    translations = translator.translate([source for source, _ in pairs], search, options.batch_size)
    for (source, reference), translation in zip(pairs, translations, strict=True):
        for text in chosen(candidates(translation), reference, options):
            yield source, text


def _join(chunks: Sequence[Path], output: Path) -> None:
    """One xz file: streams one after the other are a valid one."""
    with staged_file(output) as staging, staging.open("wb") as stream:
        for chunk in chunks:
            stream.write(chunk.read_bytes())


def _read(path: Path) -> dict[str, object]:
    try:
        return json.loads(path.read_text("utf8"))
    except ValueError:
        raise DistillError(f"{path} is damaged: remove it to start again") from None


def _write(path: Path, content: bytes) -> None:
    with staged_file(path) as staging:
        staging.write_bytes(content)
