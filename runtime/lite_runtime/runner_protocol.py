"""What Python and the native runner say to each other: one JSON request in, one JSON result out.

``lite_runner REQUEST RESULT`` reads the request, works on one exported form of a bundle, and writes the result beside
its name and renames it: what is there is whole. It exits with 0; with 2 for a request, bundle or model it refuses (the
reason on stderr, no result); anything else is a crash. Times are milliseconds of a monotonic clock inside the process.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

PROTOCOL_VERSION: Final = 1


class Message(BaseModel):
    """Base of what is said: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Sentence(Message):
    """Source token ids, eos included, and the most tokens before eos of its translation."""

    source: tuple[int, ...] = Field(min_length=1)
    max_length: int = Field(ge=1)


class Decode(Message):
    """Translate sentences, one at a time. A beam of 1 is greedy search."""

    kind: Literal["decode"] = "decode"
    sentences: tuple[Sentence, ...]
    beam: int = Field(default=1, ge=1)
    length_penalty: float = 1.0
    no_repeat_ngram: int = Field(default=0, ge=0)


class Translate(Message):
    """Translate whole texts, for a runner that was built with SentencePiece; what ``Translator`` makes of them.

    None is the manifest's default. Lengths count target tokens of one sentence. Texts are divided into sentences, and
    long sentences into parts that the graphs take.
    """

    kind: Literal["translate"] = "translate"
    texts: tuple[str, ...]
    beam: int | None = Field(default=None, ge=1)
    length_penalty: float | None = None
    no_repeat_ngram: int | None = Field(default=None, ge=0)
    max_length: int | None = Field(default=None, ge=1)
    min_length: int = Field(default=1, ge=0)


class Replay(Message):
    """Replay the bundle's golden steps: feed its tokens, compare every logit and state tensor with what it holds."""

    kind: Literal["replay"] = "replay"


class Measure(Message):
    """Time greedy decodes of exactly ``tokens`` tokens a sentence: end of sentence is not chosen before.

    ``warm_up`` decodes of the first sentence come before, and are not reported. Every sentence is decoded once.
    """

    kind: Literal["measure"] = "measure"
    sources: tuple[tuple[int, ...], ...] = Field(min_length=1)
    tokens: int = Field(ge=1)
    warm_up: int = Field(default=1, ge=0)


class RunnerRequest(Message):
    """One run over one exported form. ``bundle`` is its folder, relative to the process's working folder."""

    version: Literal[1] = PROTOCOL_VERSION
    bundle: str
    format: Literal["onnx", "executorch"]
    precision: str
    cache: Literal["explicit", "stateful"] = "explicit"
    threads: int = Field(default=1, ge=1)
    task: Annotated[Decode | Translate | Replay | Measure, Field(discriminator="kind")]


class Hypothesis(Message):
    """Tokens, eos included, and the score after the length penalty."""

    tokens: tuple[int, ...]
    score: float


class Decoded(Message):
    """The best hypothesis of each sentence, in order."""

    kind: Literal["decode"] = "decode"
    hypotheses: tuple[Hypothesis, ...]


class TranslatedSentence(Message):
    """A sentence, the tokens the encoder read, and the best hypothesis; tokens end in eos.

    One without a letter or digit is its own translation, without tokens, and scores 0.
    """

    source: str
    source_tokens: tuple[int, ...]
    text: str
    tokens: tuple[int, ...]
    score: float


class TranslatedText(Message):
    """A whole text. ``score`` is the mean of its sentences' scores, 0 where the model had nothing to do."""

    text: str
    score: float
    sentences: tuple[TranslatedSentence, ...]


class Translated(Message):
    """Each text, in order."""

    kind: Literal["translate"] = "translate"
    texts: tuple[TranslatedText, ...]


class Difference(Message):
    """Of one tensor after one step (-1: the encoder): the largest absolute difference, NaN counted as infinite.

    JSON has no infinity: it is null.
    """

    step: int
    tensor: str
    largest: float | None


class Replayed(Message):
    """Every logit and state tensor of every golden step; states the runtime keeps out of reach are absent."""

    kind: Literal["replay"] = "replay"
    differences: tuple[Difference, ...]


class Timing(Message):
    """Milliseconds of one sentence. ``steps`` are of each token, its choice included; ``sentence`` is the whole."""

    encode: float
    steps: tuple[float, ...]
    sentence: float


class Measured(Message):
    """One process's times. ``load`` is reading the model until it can run."""

    kind: Literal["measure"] = "measure"
    load: float
    timings: tuple[Timing, ...]


class RunnerResult(Message):
    """What one run gave. ``peak_rss`` is in bytes; ``runtime`` names the library and its version."""

    version: Literal[1] = PROTOCOL_VERSION
    runtime: str
    abi: str
    peak_rss: int
    result: Annotated[Decoded | Translated | Replayed | Measured, Field(discriminator="kind")]
