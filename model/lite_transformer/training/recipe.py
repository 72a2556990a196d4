"""A training run as one readable YAML file, validated before anything heavy starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from lite_transformer.config import Frozen

# An update's own seed has room for this many (training.loop).
_SEEDS = 1 << 24


class Corpus(Frozen):
    """One parallel file: ``SOURCE<TAB>TARGET`` lines, optionally .xz or .gz.

    ``repeat`` is how often an epoch sees it; a fraction takes a new random part each epoch. ``reverse`` is for files
    that hold ``TARGET<TAB>SOURCE``, so that one file trains both directions.
    """

    name: str
    path: str
    repeat: float = Field(default=1.0, gt=0)
    reverse: bool = False
    licence: str = ""


class TokenizerRecipe(Frozen):
    """A joint unigram SentencePiece model."""

    vocab: int = Field(default=8000, gt=0)
    sentences: int = Field(default=600_000, gt=0, description="sampled sentences it is trained on")
    coverage: float = Field(default=0.9997, gt=0, le=1)


class Cleaning(Frozen):
    """What is dropped before training."""

    max_words: int = Field(default=80, gt=0)
    max_tokens: int = Field(default=120, gt=0)
    min_ratio: float = 0.4
    max_ratio: float = 2.5
    unknown_rate: float = Field(
        default=0.02,
        ge=0,
        le=1,
        description="share of pairs that get an unknown symbol on both sides, to learn to copy it",
    )


class Schedule(Frozen):
    """Learning rate: linear warm-up, then cosine (paper, WMT) or inverse square root (paper, IWSLT)."""

    kind: Literal["cosine", "inverse_sqrt"] = "cosine"
    peak: float = Field(default=1e-3, gt=0)
    floor: float = Field(default=1e-5, ge=0)
    warmup: int = Field(default=500, ge=0)
    steps: int = Field(gt=0)


class Recipe(Frozen):
    """A whole run: data, tokenizer, model, optimisation, validation.

    With ``start``, which is relative to the working directory, ``preset`` and ``tokenizer`` have no effect.
    """

    name: str
    preset: str = "phone"
    start: str | None = Field(
        default=None, description="a trained model, by path or name: the run begins with its weights and its tokenizer"
    )
    source_language: str
    target_language: str
    seed: int = Field(default=1, ge=0, lt=_SEEDS)
    train: tuple[Corpus, ...] = Field(min_length=1)
    validation: Corpus
    held_out: tuple[str, ...] = Field(default=(), description="test files whose sentences must not be trained on")
    tokenizer: TokenizerRecipe = TokenizerRecipe()
    cleaning: Cleaning = Cleaning()
    schedule: Schedule
    batch_tokens: int = Field(default=2048, gt=0, description="padded target tokens a batch, all processes together")
    accumulate: int = Field(default=1, ge=1, description="batches an update, where one large enough does not fit")
    buckets: tuple[int, ...] = Field(
        default=(), description="lengths to which batches are padded, for few shapes; () for each batch its own"
    )
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    dropout: float | None = Field(default=None, ge=0, lt=1, description="instead of the preset's")
    weight_decay: float = Field(default=0.0, ge=0)
    clip_norm: float = Field(default=1.0, gt=0)
    precision: Literal["no", "bf16"] = "no"
    compile: bool = Field(default=False, description="compile the model on a GPU; a CPU runs it as it is")
    log_every: int = Field(default=1, ge=1, description="updates between readings of the loss: a GPU waits at each")
    validate_every: int = Field(default=500, gt=0)
    bleu_every: int = Field(
        default=0, ge=0, description="updates between validations by sacreBLEU, a multiple of validate_every; 0: never"
    )
    bleu_sentences: int = Field(default=200, gt=0)
    save_minutes: float = Field(default=3.0, ge=0)
    average: int = Field(default=5, ge=1, description="checkpoints averaged at the end")
    average_every: int = Field(default=200, gt=0, description="updates between the checkpoints kept for the average")

    @field_validator("train")
    @classmethod
    def _own_names(cls, train: tuple[Corpus, ...]) -> tuple[Corpus, ...]:
        names = [corpus.name for corpus in train]
        # Each corpus is cached in a file of its name, beside one called "validation".
        if len({*names, "validation"}) <= len(names) or any("/" in name for name in names):
            raise ValueError(f"corpus names must differ, without '/', none 'validation': {', '.join(names)}")
        return train

    @field_validator("precision", mode="before")
    @classmethod
    def _unquoted_no(cls, precision: object) -> object:
        return "no" if precision is False else precision  # what YAML makes of a no without quotes

    @model_validator(mode="after")
    def _bleu_is_a_validation(self) -> Recipe:
        if self.bleu_every % self.validate_every:
            raise ValueError(f"bleu_every must be a multiple of validate_every, {self.validate_every}")
        return self

    @model_validator(mode="after")
    def _every_pair_has_a_bucket(self) -> Recipe:
        longest = self.cleaning.max_tokens + 1
        if self.buckets and (sorted(set(self.buckets)) != list(self.buckets) or self.buckets[-1] < longest):
            raise ValueError(f"buckets must rise, and the last hold cleaning.max_tokens and eos, {longest}")
        return self


class RecipeError(ValueError):
    """The recipe file cannot be used; the message says which line to change."""


def load_recipe(path: Path) -> Recipe:
    """Read and validate a recipe.

    A recipe that ``extends`` another, named relative to its own folder, says only what differs: its keys replace the
    other's, and those of a mapping (``schedule``, ``tokenizer``) one by one. The other may not extend a third.

    Raises:
        RecipeError: no such file, not YAML, or a field is missing, unknown or out of range.
    """
    own = _read(path)
    if isinstance(own, dict) and "extends" in own:
        own = _extended(path, own)
    try:
        return Recipe.model_validate(own)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}{_hint(e)}" for e in error.errors()]
        raise RecipeError(f"{path} is not a valid recipe:\n" + "\n".join(lines)) from None


def _hint(error: Any) -> str:
    unquoted = error["type"] == "string_type" and isinstance(error["input"], bool)
    return " (put it in quotes: YAML reads yes, no, on and off as true and false)" if unquoted else ""


def _read(path: Path) -> Any:
    # Imported here: reading corpora, which needs this module's types, must not need the train extra.
    import yaml

    try:
        return yaml.safe_load(path.read_text("utf8"))
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a 30th of February, a thousand brackets
        raise RecipeError(f"{path} is not valid YAML: {error}") from None


def _extended(path: Path, own: dict[str, Any]) -> dict[str, Any]:
    """The recipe that ``own``, read from ``path``, extends, with its changes."""
    name = own["extends"]
    if not isinstance(name, str):
        raise RecipeError(f"{path}: extends must be the name of one recipe file")
    base = _read(path.parent / name)
    if not isinstance(base, dict) or "extends" in base:
        raise RecipeError(f"{path}: {name}, which it extends, must be a whole recipe of its own")
    merged = {**base, **{key: value for key, value in own.items() if key != "extends"}}
    for key, value in own.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            merged[key] = {**base[key], **value}
    return merged
