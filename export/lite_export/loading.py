"""Models by path: a model folder runs in PyTorch, a bundle in ONNX Runtime, and both translate alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from lite_runtime.manifest import Card, Decoding, Limits, Text, TokenIds
from lite_transformer.files import staged_file

if TYPE_CHECKING:
    from lite_runtime.tokenizer import Tokenizer
    from lite_runtime.translator import Translator
    from lite_transformer.config import ModelConfig
    from lite_transformer.model import LiteTransformer
    from lite_transformer.training.recipe import Recipe

CARD, CONFIG, MANIFEST = "card.json", "config.json", "manifest.json"
# A model folder's own source sentences, one a line, on which its bundles prove parity.
SENTENCES = "sentences.txt"
_SENTENCES = 50
# Its own small test set, SOURCE<TAB>TARGET, on which exported files must keep their BLEU.
TEST_SET = "test.tsv"
_SHIPPED = Path(__file__).parent / "shipped"
# Our training text has none of these: what a user types is brought to what the model has seen.
REPLACEMENTS = {"’": "'", "‘": "'", "“": '"', "”": '"', "\u00a0": " ", "\u202f": " ", "\u00ad": ""}


class ModelError(ValueError):
    """A path is no usable model; the message says what it should hold."""


class ModelCard(Card):
    """``card.json`` of a model folder: the card, and the defaults a bundle made from it will carry."""

    decoding: Decoding = Decoding()
    text: Text = Text()


def shipped_model(name: str = "en-fr") -> Path:
    """Folder of a model that comes with this package; see ``shipped_names``.

    Raises:
        ModelError: it is not there.
    """
    folder = _SHIPPED / name
    if not (folder / CONFIG).is_file():
        raise ModelError(f"the shipped model is missing from {folder}; reinstall lite-export")
    return folder


def shipped_names() -> list[str]:
    """Names of the models that come with this package: their languages, as in ``en-fr``."""
    return sorted(config.parent.name for config in _SHIPPED.glob(f"*/{CONFIG}"))


def is_bundle(path: Path) -> bool:
    """Whether ``path`` is a bundle (True) or a PyTorch model folder (False).

    Raises:
        ModelError: it is neither.
    """
    if not path.exists():
        names = ", ".join(shipped_names())
        raise ModelError(f"no model at {path}: name a model folder, a bundle, or a shipped model ({names})")
    if (path / MANIFEST).is_file():
        return True
    if not (path / CONFIG).is_file():
        raise ModelError(f"{path} is no model: it has neither {CONFIG} (PyTorch) nor {MANIFEST} (bundle)")
    return False


def load_card(path: Path) -> Card:
    """The card of a model folder or a bundle.

    Raises:
        ModelError, BundleError: it has none, or it is not valid.
    """
    if is_bundle(path):
        from lite_runtime.bundle import open_bundle

        return open_bundle(path, verify=False).manifest.card
    return load_model_card(path)


def load_model_card(folder: Path) -> ModelCard:
    """``card.json`` of a model folder.

    Raises:
        ModelError: there is none, or it is not valid.
    """
    path = folder / CARD
    try:
        return ModelCard.model_validate_json(path.read_text("utf8"))
    except FileNotFoundError:
        raise ModelError(f"{folder} has no {CARD}, which tells its languages; copy one from another model") from None
    except UnicodeDecodeError:
        raise ModelError(f"{path} is not UTF-8 text; copy it again") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise ModelError(f"{path}: {'.'.join(map(str, first['loc'])) or 'file'}: {first['msg']}") from None


def load_translator(path: Path | None = None, threads: int | None = None, device: str = "cpu") -> Translator:
    """Text to text with a model folder (PyTorch), a bundle (ONNX Runtime), or the shipped model (None).

    Args:
        threads: CPU threads; None leaves it to the runtime.
        device: PyTorch's name of where a model folder runs, ``cuda`` for example; bundles run on the CPU.

    Raises:
        ModelError, CheckpointError, TokenizerError, BundleError: the model cannot be used; the message has the fix.
    """
    path = path or shipped_model()
    if is_bundle(path):
        from lite_runtime.bundle import open_bundle

        return open_bundle(path).translator(threads=threads)
    return _torch_translator(path, threads, device)


def _torch_translator(folder: Path, threads: int | None, device: str) -> Translator:
    import torch

    from lite_transformer.checkpoint import load_model

    if threads:
        torch.set_num_threads(threads)
    # A model without a card (imported, or made by hand) translates with plain defaults.
    card = load_model_card(folder) if (folder / CARD).exists() else None
    decoding, text = (card.decoding, card.text) if card else (Decoding(), Text())
    model = load_model(folder).to(device)
    return model_translator(model, _tokenizer(folder, text, token_ids(model.config)), decoding)


def _tokenizer(folder: Path, text: Text, tokens: TokenIds) -> Tokenizer:
    """The SentencePiece file of our models, or the BPE vocabulary of imported ones."""
    from lite_runtime.bpe_tokenizer import VOCABULARY, FairseqBpeTokenizer
    from lite_runtime.tokenizer import SentencePieceTokenizer

    if (folder / text.tokenizer).is_file():
        return SentencePieceTokenizer(folder / text.tokenizer, tokens, text.replacements)
    if (folder / VOCABULARY).is_file():
        return FairseqBpeTokenizer(folder)
    raise ModelError(f"{folder} has no {text.tokenizer} or {VOCABULARY}: without its vocabulary nothing can be read")


def model_translator(model: LiteTransformer, tokenizer: Tokenizer, decoding: Decoding) -> Translator:
    """Text to text with a PyTorch model in memory.

    Raises:
        ModelError: a language model, which has nothing to translate from.
    """
    from lite_export.torch_session import TorchSession
    from lite_runtime.translator import Translator

    if model.config.encoder is None:
        raise ModelError("this is a language model: it has no encoder, so it cannot translate")
    return Translator(TorchSession(model), tokenizer, token_ids(model.config), limits(model.config), decoding)


def token_ids(config: ModelConfig) -> TokenIds:
    """A model's special ids; its decoder reads eos first, as fairseq's does."""
    return TokenIds(pad=config.pad, eos=config.eos, unk=config.unk, start=config.eos)


def limits(config: ModelConfig) -> Limits:
    """The longest sequences a model's position tables reach."""
    return Limits(max_source=config.max_source, max_target=config.max_target)


def write_trained_card(folder: Path, recipe: Recipe) -> None:
    """Write ``card.json`` beside a freshly trained model: what its recipe tells, and the model it started from."""
    from lite_transformer.checkpoint import load_model

    card = ModelCard(
        model_id=recipe.name,
        source_language=recipe.source_language,
        target_language=recipe.target_language,
        licence="; ".join(sorted({c.licence for c in recipe.train if c.licence})) or "unknown",
        training_data=tuple(c.name for c in recipe.train),
        parameters=sum(p.numel() for p in load_model(folder).parameters()),
        text=Text(replacements=REPLACEMENTS),
    )
    start = Path(recipe.start) if recipe.start else None
    if start and (start / CARD).exists():
        before = load_model_card(start)
        card = merged_card([before, card], card.model_id).model_copy(
            update={"source_language": card.source_language, "target_language": card.target_language}
        )
    write_card(folder, card)


def merged_card(cards: Sequence[ModelCard], name: str) -> ModelCard:
    """The first one's, with the data and licences of all, and no scores, which were another model's."""
    licences = dict.fromkeys(part for card in cards for part in card.licence.split("; "))
    changes = {
        "model_id": name,
        "scores": {},
        "training_data": tuple(dict.fromkeys(data for card in cards for data in card.training_data)),
        "licence": "; ".join(sorted(licences)),
    }
    return cards[0].model_copy(update=changes)


def write_card(folder: Path, card: ModelCard) -> None:
    """Write ``card.json`` of a model folder."""
    _write(folder / CARD, json.dumps(card.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n")


def write_sentences(folder: Path, sources: Sequence[str]) -> None:
    """Write ``sentences.txt`` beside a freshly trained model, so that it can be exported as it is."""
    lines = [source for source in sources if source.strip()][:_SENTENCES]
    _write(folder / SENTENCES, "".join(f"{line}\n" for line in lines))


def _write(path: Path, text: str) -> None:
    with staged_file(path) as staging:
        staging.write_text(text, "utf8")
