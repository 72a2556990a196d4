"""A checkpoint becomes a bundle: graphs, tokenizer, golden and manifest, staged and then renamed.

1. load the model folder  2. start the exports  3. record golden with PyTorch  4. write the manifest with checksums
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from lite_export.errors import ExportError
from lite_export.format_export import exporting, file_entries, tasks
from lite_export.loading import SENTENCES, ModelCard, limits, load_model_card, token_ids
from lite_export.recipes import DEFAULT, Recipe
from lite_export.torch_session import TorchSession
from lite_runtime.bundle import sha256_of
from lite_runtime.golden import GOLDEN_BEAM, GoldenHypothesis, GoldenSentence, dump_golden
from lite_runtime.manifest import SCHEMA_VERSION, Card, FormatEntry, Golden, Manifest, TokenIds
from lite_runtime.parity import translate_golden
from lite_runtime.recording import make_script, play, save_recording
from lite_runtime.tokenizer import SentencePieceTokenizer
from lite_transformer.checkpoint import TOKENIZER, WEIGHTS, load_model
from lite_transformer.files import staged_folder
from lite_transformer.model import LiteTransformer

Report = Callable[[str], None]
# Sentences recorded step by step: enough for a padded batch, small enough to travel to a phone.
_RECORDED = 2
_RECORDED_TOKENS = 12


def write_bundle(
    model_folder: Path,
    output: Path,
    sentences: Sequence[str] | None = None,
    recipes: Sequence[Recipe] = DEFAULT,
    extras: Sequence[str] = (),
    report: Report = lambda _: None,
) -> Manifest:
    """Export the model of ``model_folder`` into the bundle ``output``, replacing it as a whole.

    Args:
        sentences: source sentences for the golden, two or more; None for the model folder's own.
        recipes: formats, precisions and caches, see ``recipes.plan``.
        extras: further ONNX files, see ``recipes.EXTRAS``.

    Raises:
        ExportError: too few sentences, no tokenizer, a model a format cannot take, or a package that is missing.
        CheckpointError: the model folder cannot be read.
        OSError: ``output`` cannot be written; nothing is left behind.
    """
    if output.exists() and not (output / "manifest.json").exists():
        raise ExportError(f"{output} exists and is no bundle: choose another --output, or remove it")
    model, card = load_model(model_folder), load_model_card(model_folder)
    if not (model_folder / TOKENIZER).exists():
        raise ExportError(f"{model_folder} has no {TOKENIZER}: a bundle needs a SentencePiece tokenizer")
    with staged_folder(output) as staging:
        shutil.copyfile(model_folder / TOKENIZER, staging / TOKENIZER)
        with exporting(tasks(model_folder, staging, recipes, extras), report) as exported:
            report("recording golden translations with PyTorch")
            golden = _write_golden(model, card, staging, sentences or _own_sentences(model_folder))
            entries = {(e.format, e.precision, e.cache): e for e in exported()}
        ordered = [entries[r.format, r.precision, r.cache] for r in recipes]
        manifest = _manifest(model, card, model_folder, staging, golden, ordered)
        (staging / "manifest.json").write_text(manifest.model_dump_json(indent=2) + "\n", "utf8")
    return manifest


def _own_sentences(model_folder: Path) -> list[str]:
    path = model_folder / SENTENCES
    if not path.exists():
        raise ExportError(f"{model_folder} has no {SENTENCES}: name a file of source sentences with --sentences")
    return path.read_text("utf8").splitlines()


def _write_golden(model: LiteTransformer, card: ModelCard, staging: Path, sentences: Sequence[str]) -> Golden:
    config, session = model.config, TorchSession(model)
    tokens = token_ids(config)
    tokenizer = SentencePieceTokenizer(staging / TOKENIZER, tokens, card.text.replacements)
    encoded = [(text, tokenizer.encode(text).ids) for text in sentences if text.strip()]
    kept = [(text, ids) for text, ids in encoded if len(ids) <= config.max_source]
    if len(kept) < _RECORDED:
        raise ExportError(f"a golden needs {_RECORDED} sentences of at most {config.max_source} tokens")
    sources = [ids for _, ids in kept]
    found = {
        beam: translate_golden(session, sources, tokens, limits(config), card.decoding, beam)
        for beam in (1, GOLDEN_BEAM)
    }
    golden = tuple(
        GoldenSentence(
            text=text,
            source=ids,
            greedy=GoldenHypothesis.of(greedy[0]),
            beam=tuple(map(GoldenHypothesis.of, beam)),
        )
        for (text, ids), greedy, beam in zip(kept, found[1], found[GOLDEN_BEAM], strict=True)
    )
    folder = staging / "golden"
    folder.mkdir()
    (folder / "sentences.json").write_bytes(dump_golden(golden))
    _record_steps(session, golden, tokens, folder / "steps.safetensors")
    return Golden(sentences="golden/sentences.json", steps="golden/steps.safetensors")


def _record_steps(session: TorchSession, golden: Sequence[GoldenSentence], tokens: TokenIds, path: Path) -> None:
    """Record the sentences nearest to the wanted length: a batch padded on one side at least."""
    nearest = sorted(golden, key=lambda g: abs(len(g.greedy.tokens) - _RECORDED_TOKENS))
    chosen = [nearest[0], next((g for g in nearest if len(g.source) != len(nearest[0].source)), nearest[1])]
    script = make_script([g.source for g in chosen], [g.greedy.tokens for g in chosen], tokens.start, tokens.pad)
    save_recording(path, script, play(session, script))


def _manifest(
    model: LiteTransformer,
    card: ModelCard,
    model_folder: Path,
    staging: Path,
    golden: Golden,
    formats: Sequence[FormatEntry],
) -> Manifest:
    config = model.config
    shared = [staging / TOKENIZER, staging / golden.sentences, staging / golden.steps]
    return Manifest(
        schema_version=SCHEMA_VERSION,
        producer=f"lite-export {version('lite-export')}",
        card=Card(**card.model_dump(include=set(Card.model_fields))),
        vocabulary=config.target_vocab,
        tokens=token_ids(config),
        limits=limits(config),
        decoding=card.decoding,
        text=card.text,
        weights_sha256=sha256_of(model_folder / WEIGHTS),
        golden=golden,
        files=file_entries(staging, shared),
        formats=tuple(formats),
    )
