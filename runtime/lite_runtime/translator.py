"""Text in, text out: sentences are found, batched by length, searched, and put back where they stood."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from lite_runtime.manifest import Decoding, Limits, TokenIds
from lite_runtime.search import SearchOptions, search
from lite_runtime.sentences import Segment, split_long, split_sentences
from lite_runtime.session import Session
from lite_runtime.tokenizer import Encoded, Tokenizer, without_controls


class TranslateError(ValueError):
    """A translation cannot be done as asked; the message says which option to change."""


@dataclass(frozen=True)
class TranslateOptions:
    """Overrides of a model's decoding defaults; None keeps the default.

    Lengths count target tokens of one sentence. ``prefix`` is text every output must begin with; it needs
    texts of one sentence each.
    """

    beam: int | None = None
    length_penalty: float | None = None
    nbest: int = 1
    min_length: int = 1
    max_length: int | None = None
    no_repeat_ngram: int | None = None
    prefix: str = ""


@dataclass(frozen=True)
class TextHypothesis:
    """One output of one sentence; ``tokens`` end in eos."""

    text: str
    score: float
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class SentenceResult:
    """A sentence and its outputs, best first; one without a letter or digit is its own, without tokens."""

    source: str
    hypotheses: tuple[TextHypothesis, ...]


@dataclass(frozen=True)
class Translation:
    """A whole text. ``score`` is the mean of its sentences' best scores, 0 where the model had nothing to do."""

    text: str
    score: float
    sentences: tuple[SentenceResult, ...]


@dataclass
class _Job:
    """One segment of one text on its way through the model."""

    text: int
    segment: Segment
    source: Encoded | None
    hypotheses: tuple[TextHypothesis, ...] = field(default=())


class Translator:
    """A session and its tokenizer as one function from text to text.

    Args:
        tokens: the model's special ids.
        limits: the most tokens its graphs accept; longer sentences are cut at clauses.
        decoding: its defaults.
    """

    def __init__(
        self, session: Session, tokenizer: Tokenizer, tokens: TokenIds, limits: Limits, decoding: Decoding
    ) -> None:
        self.session = session
        self.tokenizer = tokenizer
        self.tokens = tokens
        self.limits = limits
        self.decoding = decoding

    def translate(
        self,
        texts: Sequence[str],
        options: TranslateOptions | None = None,
        batch_size: int = 16,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Translation]:
        """Translate each text; white space and line breaks between its sentences stay as they are.

        Args:
            batch_size: the most sentences the model sees at once.
            on_progress: called with the number of texts finished so far, whenever it grows.

        Raises:
            TranslateError: a prefix with a text that is not one sentence, or a batch size below 1.
            SearchError: options that contradict each other or the model's limits.
        """
        options = options or TranslateOptions()
        if batch_size < 1:
            raise TranslateError(f"batch_size is {batch_size}: use 1 or more")
        prefix = self._prefix(options)
        search_options = self._search_options(options, prefix)
        jobs = [job for index, text in enumerate(texts) for job in self._jobs(index, text)]
        if options.prefix:
            _check_single(jobs, len(texts))
        progress = _Progress(jobs, len(texts), on_progress)
        # Neighbours in length waste little on padding; the longest first shows at once whether memory suffices.
        waiting = sorted((job for job in jobs if job.source), key=_length, reverse=True)
        for start in range(0, len(waiting), batch_size):
            batch = waiting[start : start + batch_size]
            self._run(batch, options, search_options, prefix)
            progress.finished(batch)
        return _assemble(jobs, len(texts))

    def _jobs(self, index: int, text: str) -> list[_Job]:
        """The segments of one text; those without a letter or digit (emoji, dashes, nothing) skip the model."""
        return [
            _Job(index, part, self.tokenizer.encode(part.text) if any(map(str.isalnum, part.text)) else None)
            for sentence in split_sentences(without_controls(text))
            for part in split_long(sentence, self.limits.max_source, self._count)
        ]

    def _count(self, text: str) -> int:
        return len(self.tokenizer.encode(text).ids)

    def _prefix(self, options: TranslateOptions) -> Encoded:
        encoded = self.tokenizer.encode(options.prefix)
        return Encoded(encoded.ids[:-1], encoded.unknowns)

    def _search_options(self, options: TranslateOptions, prefix: Encoded) -> SearchOptions:
        given = {name: getattr(options, name) for name in ("beam", "length_penalty", "no_repeat_ngram")}
        defaults = {name: getattr(self.decoding, name) for name in given}
        longest = self.limits.max_target - 1
        return SearchOptions(
            **{name: defaults[name] if value is None else value for name, value in given.items()},
            min_length=options.min_length,
            max_length=longest if options.max_length is None else min(options.max_length, longest),
            nbest=options.nbest,
            prefix=prefix.ids,
        )

    def _max_length(self, source: Encoded, options: TranslateOptions, search_options: SearchOptions) -> int:
        if options.max_length is not None:
            return search_options.max_length
        usual = self.decoding.longest(len(source.ids), self.limits)
        least = max(1, search_options.min_length, len(search_options.prefix))
        return max(least, usual)

    def _run(
        self, batch: list[_Job], options: TranslateOptions, search_options: SearchOptions, prefix: Encoded
    ) -> None:
        sources = [job.source for job in batch if job.source]
        found = search(
            self.session,
            [source.ids for source in sources],
            self.tokens,
            search_options,
            max_lengths=[self._max_length(source, options, search_options) for source in sources],
        )
        for job, source, hypotheses in zip(batch, sources, found, strict=True):
            # Unknown tokens of the prefix come first in the output.
            unknowns = (*prefix.unknowns, *source.unknowns)
            job.hypotheses = tuple(
                TextHypothesis(self.tokenizer.decode(h.tokens, unknowns, source.trailing), h.score, h.tokens)
                for h in hypotheses
            )


class _Progress:
    """Counts the texts whose segments are all done."""

    def __init__(self, jobs: Sequence[_Job], texts: int, report: Callable[[int], None] | None) -> None:
        self._report = report
        self._left = Counter(job.text for job in jobs if job.source)
        self._done = 0
        self._add(texts - len(self._left))

    def finished(self, batch: Sequence[_Job]) -> None:
        before = len(self._left)
        self._left -= Counter(job.text for job in batch)
        self._add(before - len(self._left))

    def _add(self, texts: int) -> None:
        self._done += texts
        if texts and self._report:
            self._report(self._done)


def _length(job: _Job) -> int:
    return len(job.source.ids) if job.source else 0


def _check_single(jobs: Sequence[_Job], texts: int) -> None:
    sentences = Counter(job.text for job in jobs if job.source)
    for index in range(texts):
        if sentences[index] != 1:
            raise TranslateError(f"a prefix needs texts of one sentence; text {index + 1} has {sentences[index]}")


def _assemble(jobs: Sequence[_Job], texts: int) -> list[Translation]:
    by_text: list[list[_Job]] = [[] for _ in range(texts)]
    for job in jobs:
        by_text[job.text].append(job)
    return [_joined(own) for own in by_text]


def _joined(jobs: Sequence[_Job]) -> Translation:
    """One text put together again from the best hypothesis of each segment."""
    text = "".join((job.hypotheses[0].text if job.source else job.segment.text) + job.segment.after for job in jobs)
    scores = [job.hypotheses[0].score for job in jobs if job.source]
    return Translation(text, fmean(scores) if scores else 0.0, tuple(_result(job) for job in jobs if job.segment.text))


def _result(job: _Job) -> SentenceResult:
    own = (TextHypothesis(job.segment.text, 0.0, ()),)
    return SentenceResult(job.segment.text, job.hypotheses if job.source else own)
